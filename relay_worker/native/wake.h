/* What the files of the wide seam share: where the state is, and what is worked out of a wake. */

#ifndef RELAY_WAKE_H
#define RELAY_WAKE_H

#include "packets.h"

#include <math.h>

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
};

/* --- state, which is the Python's ------------------------------------------------------------------------------ */

typedef enum { INT, REAL, FLAG, MAYBE } Type; /* MAYBE: a float or None, which is a NaN here */

typedef union {
    int64_t i;
    double r;
} Value;

typedef struct {
    int part;
    Type type;
    const char *name;
} Field;

/* The order of `InputParts` in the package. */
enum {
    SESSION, PARSER, PIPELINE, INPUT, RECEIVER, TRACK, VIDEO, PASSTHROUGH, AUDIO, UNITS, INPUT_GIVEN, CLOCK = INPUT_GIVEN,
    INPUT_PARTS
};

#define INPUT_FIELDS(X)                                                                                                \
    X(SESSION, REAL, last_data, "_last_data")                                                                          \
    X(PARSER, FLAG, is_lost, "_lost")                                                                                  \
    X(PARSER, INT, garbage_run, "_garbage_run")                                                                        \
    X(PIPELINE, INT, taken_whole, "taken_whole")                                                                       \
    X(PIPELINE, REAL, pipeline_now, "_now")                                                                            \
    X(INPUT, INT, input_ssrc, "_ssrc")                                                                                 \
    X(INPUT, REAL, ahead, "_ahead")                                                                                    \
    X(INPUT, INT, metered, "_metered")                                                                                 \
    X(INPUT, REAL, metered_at, "_metered_at")                                                                          \
    X(INPUT, FLAG, too_fast, "_too_fast")                                                                              \
    X(INPUT, REAL, due, "due")                                                                                         \
    X(VIDEO, INT, keyframes_noted, "_keyframes")                                                                       \
    X(VIDEO, REAL, keyframe_at, "keyframe_at")                                                                         \
    X(VIDEO, REAL, keyframe_interval, "keyframe_interval")                                                             \
    X(RECEIVER, INT, packets, "packets")                                                                               \
    X(RECEIVER, INT, bytes, "bytes")                                                                                   \
    X(RECEIVER, INT, ssrc, "ssrc")                                                                                     \
    X(RECEIVER, INT, highest, "_highest")                                                                              \
    X(RECEIVER, INT, last_timestamp, "_last_timestamp")                                                                \
    X(RECEIVER, MAYBE, transit, "_transit")                                                                            \
    X(RECEIVER, REAL, jitter, "_jitter")                                                                               \
    X(RECEIVER, INT, carried_loss, "_carried")                                                                         \
    X(RECEIVER, INT, clock_rate, "_clock_rate")                                                                        \
    X(RECEIVER, INT, payload_type, "_payload_type")                                                                    \
    X(PASSTHROUGH, INT, sent_timestamp, "timestamp")                                                                   \
    X(PASSTHROUGH, INT, stamp, "_stamp")                                                                               \
    X(PASSTHROUGH, INT, raw, "_raw")                                                                                   \
    X(PASSTHROUGH, INT, shift, "_shift")                                                                               \
    X(PASSTHROUGH, INT, sharing, "_sharing")                                                                           \
    X(PASSTHROUGH, REAL, interval, "_interval")                                                                        \
    X(PASSTHROUGH, REAL, arrival_interval, "arrival_interval")                                                         \
    X(PASSTHROUGH, INT, stage, "_stage")                                                                               \
    X(PASSTHROUGH, FLAG, fields, "_fields")                                                                            \
    X(PASSTHROUGH, FLAG, closed, "_closed")                                                                            \
    X(PASSTHROUGH, FLAG, timed, "_timed")                                                                              \
    X(PASSTHROUGH, FLAG, marked, "_marked")                                                                            \
    X(PASSTHROUGH, FLAG, key, "_key")                                                                                  \
    X(PASSTHROUGH, FLAG, sent, "_sent")                                                                                \
    X(PASSTHROUGH, FLAG, waits, "_waits")                                                                              \
    X(PASSTHROUGH, FLAG, undated, "_undated")                                                                          \
    X(PASSTHROUGH, FLAG, mistrusted, "_mistrusted")                                                                    \
    X(PASSTHROUGH, FLAG, omits, "_omits")                                                                              \
    X(PASSTHROUGH, INT, distrusted, "_distrusted")                                                                     \
    X(PASSTHROUGH, FLAG, warned, "_warned")                                                                            \
    X(PASSTHROUGH, INT, sets_seen, "_sets_seen")                                                                       \
    X(PASSTHROUGH, FLAG, repeats_sets, "repeats_sets")                                                                 \
    X(PASSTHROUGH, FLAG, wants_keyframe, "wants_keyframe")                                                             \
    X(PASSTHROUGH, FLAG, starts_late, "_starts_late")                                                                  \
    X(PASSTHROUGH, FLAG, in_fragment, "_in_fragment")                                                                  \
    X(PASSTHROUGH, INT, carry_start, "_carry_start")                                                                   \
    X(PASSTHROUGH, INT, header, "_header")                                                                             \
    X(PASSTHROUGH, INT, b_frames, "b_frames")                                                                          \
    X(PASSTHROUGH, INT, frames, "frames")                                                                              \
    X(PASSTHROUGH, INT, keyframes, "keyframes")                                                                        \
    X(PASSTHROUGH, INT, max_payload, "max_payload")                                                                    \
    X(AUDIO, INT, unit_timestamp, "_timestamp")                                                                        \
    X(AUDIO, FLAG, missing, "_missing")                                                                                \
    X(UNITS, FLAG, plain_headers, "_plain")                                                                            \
    X(TRACK, INT, timestamp, "timestamp")                                                                              \
    X(TRACK, REAL, media, "media")                                                                                     \
    X(TRACK, INT, rate, "rate")                                                                                        \
    X(TRACK, REAL, arrival, "arrival")                                                                                 \
    X(TRACK, REAL, source, "source")                                                                                   \
    X(TRACK, MAYBE, ntp_offset, "ntp_offset")                                                                          \
    X(TRACK, REAL, skew, "skew")                                                                                       \
    X(TRACK, REAL, floor, "floor")                                                                                     \
    X(CLOCK, REAL, offset, "offset")                                                                                   \
    X(CLOCK, MAYBE, previous, "_previous")                                                                             \
    X(CLOCK, REAL, current, "_current")                                                                                \
    X(CLOCK, REAL, window_end, "_window_end")                                                                          \
    X(CLOCK, REAL, adjusted, "_adjusted")

/* The order of `OutputParts` in the package. */
enum {
    PACER, SETTINGS, LINE, METER, PACER_STATS, SENDER, STREAM, STREAM_STATS, WRITER, HISTORY, SENT_RUN, REPAIR, UPLINK, PATH,
    PROTECTOR, FEEDBACK, DELAY, NOW, PREPARED, SLOTS, SENT_AT, SENT_SIZE, TIME_ID, NUMBER_ID, OUTPUT_PARTS
};

/* The sequence number is written back first: what fails behind it must not let a number be used twice. */
#define OUTPUT_FIELDS(X)                                                                                               \
    X(STREAM, INT, sequence, "sequence")                                                                               \
    X(STREAM, INT, out_ssrc, "ssrc")                                                                                   \
    X(STREAM, INT, out_payload_type, "payload_type")                                                                   \
    X(STREAM, INT, timestamp_base, "timestamp_base")                                                                   \
    X(STREAM, INT, out_clock_rate, "clock_rate")                                                                       \
    X(STREAM, REAL, stream_last_sent, "last_sent")                                                                     \
    X(STREAM, MAYBE, stream_owed, "owed_since")                                                                        \
    X(STREAM_STATS, INT, sent_packets, "packets")                                                                      \
    X(STREAM_STATS, INT, sent_bytes, "bytes")                                                                          \
    X(WRITER, INT, transport_sequence, "_transport_sequence")                                                          \
    X(WRITER, INT, filled, "_filled")                                                                                  \
    X(SENDER, REAL, last_sent, "last_sent")                                                                            \
    X(SENDER, MAYBE, owed, "owed_since")                                                                               \
    X(SENDER, REAL, next_report, "_next_report")                                                                       \
    X(SENDER, FLAG, keyframe_wanted, "_keyframe_wanted")                                                               \
    X(PACER, MAYBE, ceiling, "ceiling")                                                                                \
    X(PACER, FLAG, pacer_wants_keyframe, "wants_keyframe")                                                             \
    X(PACER, FLAG, skipping, "_skipping")                                                                              \
    X(PACER, REAL, tokens, "_tokens")                                                                                  \
    X(PACER, REAL, tokens_at, "_tokens_at")                                                                            \
    X(PACER, MAYBE, sending, "_sending")                                                                               \
    X(SETTINGS, REAL, floor_bitrate, "floor_bitrate")                                                                  \
    X(LINE, REAL, low, "_low")                                                                                         \
    X(LINE, REAL, high, "_high")                                                                                       \
    X(LINE, REAL, bucket_end, "_bucket_end")                                                                           \
    X(LINE, REAL, low_before, "_low_before")                                                                           \
    X(LINE, REAL, high_before, "_high_before")                                                                         \
    X(LINE, MAYBE, line, "_line")                                                                                      \
    X(LINE, REAL, threshold, "_threshold")                                                                             \
    X(METER, REAL, meter_start, "_start")                                                                              \
    X(METER, REAL, latest, "latest")                                                                                   \
    X(METER, INT, meter_bytes, "_bytes")                                                                               \
    X(METER, INT, meter_before, "_before")                                                                             \
    X(PACER_STATS, INT, offered_bytes, "offered_bytes")                                                                \
    X(REPAIR, FLAG, tails_twice, "tails_twice")                                                                        \
    X(UPLINK, FLAG, probing, "probing")                                                                                \
    X(PATH, FLAG, gso, "gso")                                                                                          \
    X(FEEDBACK, INT, newest, "_newest")

#define INDEX(part, type, name, attribute) f_##name,
#define FIELD(part, type, name, attribute) {part, type, attribute},
enum { INPUT_FIELDS(INDEX) INPUT_COUNT };
enum { OUTPUT_FIELDS(INDEX) OUTPUT_COUNT };
#define NAMES(X)                                                                                                       \
    X(_pending) X(packets) X(last_media) X(last_frame) X(_arrived) X(_out) X(earlier) X(held) X(_carry) X(_collected)  \
    X(clock) X(_frame) X(_held) X(_ready) X(_sock) X(_packed) X(fileno) X(flush) X(after_refusal) X(append)            \
    X(_samples) X(add) X(failures) X(_say_what_is_due) X(_filled) X(parameter_sets) X(_sps) X(_pps) X(info)            \
    X(frames_only) X(_audio) X(_fragment) X(pending) X(wake) X(_report_due) X(_buckets) X(popleft)
#define NAME(name) n_##name,
enum { NAMES(NAME) NAME_COUNT };

/* Interned once; there is one interpreter in a process. */
extern PyObject *names[NAME_COUNT];

typedef struct {
    PyObject *parts[OUTPUT_PARTS];
    Slots *slots; /* one of the parts */
    uint32_t time_id, number_id;
    Py_buffer sent_at, sent_size; /* of `Feedback`, by number: doubles, and 16-bit integers */
    Value before[OUTPUT_COUNT], now[OUTPUT_COUNT];
    double frame_media, frame_release;
    int frame_is_new;
    double ended[3]; /* the smoother's second that has ended: its start, its lowest and its highest transit */
    int second_is_new, has_ended, forgotten; /* seconds before it that are */
    uint32_t sequence, number; /* of the next packet to be written */
} Output;

typedef struct {
    PyObject_HEAD
    PyObject *guards; /* (object, name, value) of each attribute that must be what it was */
    PyObject *parts[INPUT_GIVEN];
    PyObject *kind;        /* of its media */
    long channel, control; /* of that */
    Py_ssize_t outputs;
    Output *output;
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
    Value before[INPUT_COUNT], v[INPUT_COUNT];
    double arrived_at;
    int64_t arrived;
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

/* --- state.c: attributes of Python's objects. Without an exception of their own: 1 when it is as it should be. ---- */

int load_input(PyObject *const *parts, Value *values);
int load_output(Output *output);
int load_pair(PyObject *object, int name, double *first, double *second);
int is_none(PyObject *object, int name, int empty);
int is_guarded(PyObject *guards);

/* -1 with an exception. */
int store_input(PyObject *const *parts, const Value *before, const Value *values);
int store_output(Output *output);
int set_pair(PyObject *object, int name, PyObject *first, PyObject *second);
int set_item(PyObject *object, int name, PyObject *key, PyObject *value);
int call(PyObject *object, int name, PyObject *first, PyObject *second);
int intern_names(void);

/* --- input.c: from bytes to packets, and what is remembered of them ---------------------------------------------- */

/* Split what arrived into packets of the track and those of other channels; 0 where it is anything else. */
int split(Work *work, PyObject *lists);

/* Whether the packets are plain, as far as that is the same for all tracks; changes nothing. */
int receive_packets(Work *work, PyObject *const *parts, double now);

/* Write that back; -1 with an exception. */
int keep_packets(Work *work, PyObject *const *parts, PyObject *kind, PyObject *now);

/* The same for a wake with video: whether all of it is plain, up to the payloads of each run and their media times; and
 * packets of other channels into the parser's lists. */
int work_out_input(Work *work, PyObject *const *parts, double now);
int keep_input(Work *work, PyObject *const *parts, PyObject *lists, PyObject *kind, PyObject *now);
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
int add_kept(PyObject *module);

/* Whether an output would let all runs through at once; changes nothing. The others are steps of it. */
int work_out_output(Work *work, Output *output, double now);
int begin_output(Output *output);
void count_run(Output *output, const Run *run, double now);

/* Write its numbers back, for all runs; then send each. -1 with an exception. */
int keep_output(Output *output);
int send_run(Work *work, const Run *run, Output *output, PyObject *material, PyObject *now_object, double now);

/* --- smoother.c --------------------------------------------------------------------------------------------------- */

/* Whether a frame leaves at once; changes nothing but the output's numbers. */
int is_even(Output *output, double media, double now);

/* Write back what is no number. -1 with an exception. */
int keep_second(const Output *output);

/* --- wake.c --------------------------------------------------------------------------------------------------- */

/* Whether this is a `Wake` that is made of this session. */
int is_wake_of(PyObject *object, PyObject *session);

/* take(data, now) */
PyObject *wake_take(PyObject *object, PyObject *const *arguments, Py_ssize_t count);

/* --- sound.c, hearing.c ------------------------------------------------------------------------------------------- */

/* send(payloads, media time, step, now): as `take`, for sound that has been made. */
PyObject *wake_send(PyObject *object, PyObject *const *arguments, Py_ssize_t count);

/* What `hear` gives for these bytes: (access unit, media time), or 0 where the wake is anything else; NULL with an
 * exception. */
PyObject *hear_bytes(Wake *self, PyObject *const *parts, PyObject *lists, PyObject *buffer, PyObject *now);

#endif
