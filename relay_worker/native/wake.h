/* What the files of the wide seam share: where the state is, and what is worked out of a wake. */

#ifndef RELAY_WAKE_H
#define RELAY_WAKE_H

#include "avcodec.h"
#include "state.h"

enum {
    MAX_PACKETS = 64,  /* of the video in one wake; more are no plain wake */
    MAX_OTHERS = 32,   /* of other channels */
    MAX_PAYLOADS = 128,
    MAX_RUNS = 8,
    MAX_OUTPUTS = 8,
    MOST_PAYLOAD = 1400, /* publish/sender.py, MAX_RTP_PAYLOAD */
    LEAST_PAYLOAD = 64,  /* media/nal_units.py */
    MOST_SETS = 2048,    /* bytes of parameter sets that are put before keyframes of one wake */
    SENT_KEPT = 4096, /* publish/feedback.py */
    SAMPLES = 1024,   /* media/delay.py */
    DONE = 1,         /* what `take` says where all is taken, and nothing left to the Python */
    OTHERS_LEFT = 2,  /* where packets of other channels are in the parser's lists besides */
    NO_VIDEO = 3,     /* where only packets of other channels have come, and nothing has happened */
};

#define NAMES(X)                                                                                                       \
    X(fileno) X(flush) X(after_refusal) X(append) X(add) X(_evict) X(_shrink) X(_say_what_is_due) X(_filled) X(_sps)    \
    X(_pps) X(info) X(frames_only) X(pending) X(wake) X(_report_due) X(popleft) X(sent) X(_heard) X(_passed)   \
    X(encode) X(_forward) X(_encoded) X(_came) X(note_undecodable) X(note_unencodable) X(update) X(samples) X(sample_rate) X(planes) \
    X(packets) X(sequence) X(timestamp) X(step) X(transport_sequence) X(feed) X(take_left)
#define NAME(name) n_##name,
enum { NAMES(NAME) NAME_COUNT };

#define OPUS_CLOCK 48000.0 /* RFC 7587, 4.1 */

/* Interned once; there is one interpreter in a process. */
extern PyObject *names[NAME_COUNT];

typedef struct {
    PyObject *object; /* borrowed: `method` keeps it */
    PyObject *method; /* of it, or NULL */
} Method; /* as it was found last */

/* Those of an output that are called at every run. */
enum { FILENO, APPEND, POPLEFT, OUTPUT_METHODS };

typedef struct {
    PyObject *parts[OUTPUT_PARTS];
    Method methods[OUTPUT_METHODS];
    Slots *slots; /* one of the parts */
    uint32_t time_id, number_id;
    Py_buffer sent_at, sent_size; /* of `Feedback`, by number: doubles, and 16-bit integers */
    Value now[OUTPUT_COUNT];
    double ended[3]; /* the smoother's second that has ended: its start, its lowest and its highest transit */
    int second_is_new, has_ended, forgotten; /* seconds before it that are */
    uint32_t sequence, number; /* of the next packet to be written */
} Output;

typedef struct {
    PyObject *object, *name, *value; /* borrowed from `guards` */
    const Value *slot;               /* where it is, or NULL */
    Type type;
} Guard; /* an attribute that must be what it was */

/* The order of `TranscodingParts` in the package. */
enum {
    TRANSCODER, CHAIN, SOUND_CLOCK, TRANSCODING_STATES, ENCODER = TRANSCODING_STATES, ENCODE, CONTEXT, PACKET, DECODE,
    REFUSALS, SAMPLE_RATE, STRIDE, FRAME_BYTES, DECODER, TRANSCODING_PARTS
};

/* opus_encode, or opus_encode_float */
typedef int32_t (*encode_function)(void *context, const void *samples, int count, uint8_t *out, int32_t room);

typedef struct {
    PyObject *parts[TRANSCODING_PARTS];
    encode_function encode; /* NULL where sound is only heard */
    void *context;
    long rate;
    Py_ssize_t stride, frame_bytes;
    Decoder decoder;
    double error, budget; /* what is worked out of the next unit's place */
    int pause, settles;
} Transcoding;

typedef struct {
    PyObject_HEAD
    PyObject *guards; /* (object, name, value) of each */
    Guard *guard;
    PyObject *parts[INPUT_GIVEN];
    PyObject *kind;        /* of its media */
    long channel, control; /* of that */
    Py_ssize_t outputs;
    Output *output;
    Transcoding transcoding;
} Wake;

/* --- what is worked out of a wake ------------------------------------------------------------------------------ */

typedef struct {
    uint32_t offset, size;
    int marker;
} Piece; /* of a buffer: a packet, or a payload */

typedef struct {
    int64_t timestamp;
    int first, end;         /* packets */
    int out_first, out_end; /* payloads */
    int64_t sent_timestamp;
    int64_t bytes;          /* of these */
    double media, step;     /* seconds; from one payload to the next, 0 for video */
} Run;

typedef struct {
    long channel, control; /* of the track */
    const uint8_t *data;
    size_t size, taken; /* what was given, and how much of it is whole frames */
    Piece packets[MAX_PACKETS], others[MAX_OTHERS], payloads[MAX_PAYLOADS];
    uint8_t other_channels[MAX_OTHERS];
    Run runs[MAX_RUNS];
    int packet_count, other_count, run_count, payload_count;
    PyObject *passthrough; /* borrowed */
    Value v[INPUT_COUNT];
    uint8_t carry[MOST_PAYLOAD];
    size_t carried;
    int has_carry, carry_changed;
    PyObject *cut; /* bytes of the payloads, when any is not as it came */
    size_t cut_used, cut_size;
} Work;

#define I(name) (work->v[f_##name].i)
#define R(name) (work->v[f_##name].r)
#define OI(name) (output->now[f_##name].i)
#define OR(name) (output->now[f_##name].r)

/* --- objects.c: the Python's objects, where they are no numbers. --------------------------------------------------- */

/* Whether an attribute that is an object is there and has no items. */
int is_empty(PyObject *object);

/* Whether all that was to stay as it was did. */
int is_guarded(const Wake *wake);

/* Make the guards of `wake->guards`: 0 where they are none. */
int make_guards(Wake *wake);

/* -1 with an exception. */
int set_item(PyObject *dict, PyObject *key, PyObject *value);
int call(PyObject *object, int name, PyObject *first, PyObject *second);

/* The same of one that has been called before, which is looked up only where the object is another. */
PyObject *call_again(Method *found, PyObject *object, int name, PyObject *argument);
int intern_names(void);

/* Give the payloads of a run, which are parts of `material`, to a method of the Python, which sends them. -1 with an
 * exception. */
int hand_on(const Work *work, const Run *run, PyObject *pipeline, int method, PyObject *material);

/* --- input.c: from bytes to packets, and what is remembered of them ---------------------------------------------- */

/* Split what arrived into packets of the track and those of other channels; 0 where it is anything else. */
int split(Work *work, PyObject *lists);

/* Whether the packets are plain, as far as that is the same for all tracks; changes nothing. */
int receive_packets(Work *work, PyObject *const *parts, double now);

/* Write that back; -1 with an exception. */
int keep_packets(Work *work, PyObject *const *parts, PyObject *kind, PyObject *now);

/* The same for a wake with video: whether all of it is plain, up to the payloads of each run and their media times. */
int work_out_input(Work *work, PyObject *const *parts, double now);
int keep_input(Work *work, PyObject *const *parts, PyObject *kind, PyObject *now);

/* Put packets of other channels into the parser's lists. -1 with an exception. */
int leave_others(const Work *work, PyObject *lists);
int has_payloads(const Run *run);

/* --- pictures.c: from packets to payloads; 0 where the Python has to decide. -------------------------------------- */

int pass_pictures(Work *work);

/* --- payloads.c: 0 where there is no room for one. ---------------------------------------------------------------- */

/* Payloads are copied from here on, those that there are and all that follow. */
int begin_cut(Work *work);

/* A payload of `head` and `tail`. Before `begin_cut` there is no head, and the tail is a part of what came. */
int emit_payload(Work *work, const uint8_t *head, size_t head_size, const uint8_t *tail, size_t tail_size, int marker);

/* A whole NAL unit, in fragments where it is too long. */
int put_nal(Work *work, const uint8_t *nal, size_t size);

/* What a fragment brought of a NAL unit that is cut anew. */
int recut(Work *work, const uint8_t *data, size_t size, int ends);

/* --- timeline.c: sets the run's media time; 0 where a mapping would have to be started. --------------------------- */

int map_time(Work *work, Run *run, double now);

/* --- output.c: from payloads to packets --------------------------------------------------------------------------- */

int fill_output(Output *output, PyObject *given);
void clear_output(Output *output);

/* Whether an output would let all runs through at once; changes nothing. The others are steps of it. */
int work_out_output(Work *work, Output *output, double now);
int begin_output(Output *output);
void count_run(Output *output, const Run *run, double now);

/* Write its numbers back, for all runs; then send each. -1 with an exception. */
int keep_output(Output *output);
int send_run(const Work *work, const Run *run, Output *output, PyObject *material, PyObject *now_object, double now);

/* --- blocks.c: where payloads that are kept lie -------------------------------------------------------------------- */

/* The bytes of what payloads are parts of: bytes, or a block. */
const uint8_t *material_data(PyObject *material);

/* Copy the payloads of a wake, which are parts of `material`, into a block: that is returned instead of `material`, of which
 * a reference is taken over. `material` itself where there is no memory. */
PyObject *stow(Work *work, PyObject *material);

/* Copy a list of plain payloads with so many bytes in all, and say where each is. The block; NULL with an exception. */
PyObject *stow_payloads(PyObject *payloads, size_t size, Piece *pieces);
int add_blocks(PyObject *module);

/* --- history.c: what is kept of packets that were sent -------------------------------------------------------------- */

typedef struct {
    double at; /* monotonic seconds */
    uint32_t sequence, timestamp, step, transport_sequence; /* of the first, and from one to the next; as `SentRun` */
} Sent;

/* SentHistory.append, of a run whose payloads are parts of `material`. -1 with an exception. */
int keep_run(const Work *work, const Run *run, Output *output, PyObject *material, const Sent *sent);
int add_kept(PyObject *module);

/* kept(run) of the module */
PyObject *history_kept(PyObject *module, PyObject *run);

/* --- smoother.c --------------------------------------------------------------------------------------------------- */

/* Whether a frame leaves at once; changes nothing but the output's numbers. */
int is_even(Output *output, double media, double now);

/* Write back what is no number. -1 with an exception. */
int keep_second(const Output *output);

/* --- wake.c --------------------------------------------------------------------------------------------------- */

/* Whether this is a `Wake`, and one that is made of this session. */
int is_wake(PyObject *object);
int is_wake_of(PyObject *object, PyObject *session);

/* Whether an output keeps what it has sent. */
int is_kept(const Wake *wake);

/* take(data, now) and hear(data, now) */
PyObject *wake_take(PyObject *object, PyObject *const *arguments, Py_ssize_t count);
PyObject *wake_hear(PyObject *object, PyObject *const *arguments, Py_ssize_t count);

/* --- sending.c, hearing.c ------------------------------------------------------------------------------------------- */

/* send(payloads, media time, step, now): as `take`, for sound that has been made. */
PyObject *wake_send(PyObject *object, PyObject *const *arguments, Py_ssize_t count);

/* release(payloads, media time, step, now): the same behind the pacer, for whatever that has let through. */
PyObject *wake_release(PyObject *object, PyObject *const *arguments, Py_ssize_t count);

/* The same of a run of payloads that are parts of `material`, by a `Wake` or what turns out to be none: 1, 0 where nothing
 * was done, -1 with an exception. */
int send_sound(PyObject *object, const Work *work, const Run *run, PyObject *material, PyObject *now);

/* What `hear` gives for these bytes: (access unit, media time), 1 where it has been sent, 0 where the wake is anything
 * else; NULL with an exception. */
PyObject *hear_bytes(Wake *self, PyObject *const *parts, PyObject *lists, PyObject *buffer, PyObject *now);

/* --- listening.c --------------------------------------------------------------------------------------------------- */

/* Whether something is due that only the Python does: a report to the camera. -1 with an exception. */
int is_due(PyObject *source, PyObject *now);

/* A wake without video to a pipeline: what hears its sound is asked at once, as `Pipeline.take_wake` would. A new
 * reference to what became of it, DONE or NO_VIDEO; NULL with an exception. */
PyObject *listen_in(PyObject *sink, PyObject *session, PyObject *data, PyObject *now);

/* The same of a packet of sound that came with video, where there is nothing else: 1, 0 where nothing has happened, -1 with an
 * exception. */
int listen_beside(const Work *work, PyObject *const *parts, PyObject *now);

/* --- transcoding.c ------------------------------------------------------------------------------------------------- */

int fill_transcoding(Transcoding *transcoding, PyObject *given);
void clear_transcoding(Transcoding *transcoding);

/* Whether a unit of this time is simply what comes next; changes nothing that the Python sees. */
int follows_on(Transcoding *transcoding, double media, double now);

/* Pipeline._forward of sound that came at `now`; where it may not be sent at once, the Python's `method` of the pipeline is
 * given it. -1 with an exception. */
int forward_sound(Wake *wake, Work *work, Run *run, PyObject *material, PyObject *now, int method);

/* Decode, encode and send such a unit. -1 with an exception. */
int transcode(Wake *wake, Work *work, const uint8_t *unit, size_t size, double media, PyObject *now);

#endif
