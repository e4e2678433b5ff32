/* The state of a camera's parts: which of the attributes of their classes are plain memory, and where.
 *
 * Each part's class is derived from a type of this module (state.c) whose instances are rows of slots. To the Python a slot
 * is an attribute like any other, under the same name and with the same values; compiled code reads and writes it where
 * it is. Without this module the classes are derived from empty ones, and the attributes are the Python's own.
 */

#ifndef RELAY_STATE_H
#define RELAY_STATE_H

#include "packets.h"

#include <math.h>

/* What is in a slot, and what the Python sees: MAYBE is a float or None, which is a NaN here, and NUMBER an int or None,
 * which is `NO_NUMBER` here. FLAG is a bool; whatever is given to it counts by its truth. */
typedef enum { INT, REAL, FLAG, MAYBE, NUMBER, OBJECT } Type;

#define NO_NUMBER INT64_MIN

typedef union {
    int64_t i;
    double r;
    PyObject *o; /* owned; NULL for an attribute that is not there */
} Value;

typedef struct {
    PyObject_HEAD
    Value v[1]; /* as many as the type has */
} State;

/* The order of `InputParts` in the package. */
enum {
    SESSION, PARSER, PIPELINE, INPUT, RECEIVER, TRACK, PASSTHROUGH, UNITS, REORDER, WAIT, INPUT_GIVEN, CLOCK = INPUT_GIVEN,
    INPUT_PARTS
};

#define INPUT_FIELDS(X)                                                                                                \
    X(SESSION, REAL, last_data, "_last_data")                                                                          \
    X(PARSER, FLAG, is_lost, "_lost")                                                                                  \
    X(PARSER, INT, garbage_run, "_garbage_run")                                                                        \
    X(PIPELINE, INT, taken_whole, "taken_whole")                                                                       \
    X(PIPELINE, INT, taken_in, "taken_in")                                                                             \
    X(PIPELINE, REAL, pipeline_now, "_now")                                                                            \
    X(PIPELINE, FLAG, filling, "filling")                                                                              \
    X(INPUT, NUMBER, input_ssrc, "_ssrc")                                                                              \
    X(INPUT, REAL, ahead, "_ahead")                                                                                    \
    X(INPUT, INT, metered, "_metered")                                                                                 \
    X(INPUT, REAL, metered_at, "_metered_at")                                                                          \
    X(INPUT, FLAG, too_fast, "_too_fast")                                                                              \
    X(INPUT, REAL, due, "due")                                                                                         \
    X(INPUT, INT, arrived, "_arrived")                                                                                 \
    X(INPUT, REAL, arrived_at, "_arrived_at")                                                                          \
    X(INPUT, INT, keyframes_noted, "_keyframes")                                                                       \
    X(INPUT, REAL, keyframe_at, "keyframe_at")                                                                         \
    X(INPUT, REAL, keyframe_interval, "keyframe_interval")                                                             \
    X(INPUT, INT, unit_timestamp, "_timestamp")                                                                        \
    X(INPUT, FLAG, missing, "_missing")                                                                                \
    X(RECEIVER, INT, packets, "packets")                                                                               \
    X(RECEIVER, INT, bytes, "bytes")                                                                                   \
    X(RECEIVER, NUMBER, ssrc, "ssrc")                                                                                  \
    X(RECEIVER, INT, highest, "_highest")                                                                              \
    X(RECEIVER, INT, last_timestamp, "_last_timestamp")                                                                \
    X(RECEIVER, MAYBE, transit, "_transit")                                                                            \
    X(RECEIVER, REAL, jitter, "_jitter")                                                                               \
    X(RECEIVER, INT, carried_loss, "_carried")                                                                         \
    X(RECEIVER, INT, clock_rate, "_clock_rate")                                                                        \
    X(RECEIVER, NUMBER, payload_type, "_payload_type")                                                                 \
    X(TRACK, INT, timestamp, "timestamp")                                                                              \
    X(TRACK, REAL, media, "media")                                                                                     \
    X(TRACK, INT, rate, "rate")                                                                                        \
    X(TRACK, REAL, arrival, "arrival")                                                                                 \
    X(TRACK, REAL, source, "source")                                                                                   \
    X(TRACK, MAYBE, ntp_offset, "ntp_offset")                                                                          \
    X(TRACK, REAL, skew, "skew")                                                                                       \
    X(TRACK, REAL, floor, "floor")                                                                                     \
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
    X(UNITS, FLAG, plain_headers, "_plain")                                                                            \
    X(REORDER, NUMBER, order_next, "_next")                                                                            \
    X(WAIT, MAYBE, wait_arrival, "_arrival")                                                                           \
    X(WAIT, REAL, waited, "_waited")                                                                                   \
    X(CLOCK, REAL, offset, "offset")                                                                                   \
    X(CLOCK, MAYBE, previous, "_previous")                                                                             \
    X(CLOCK, REAL, current, "_current")                                                                                \
    X(CLOCK, REAL, window_end, "_window_end")                                                                          \
    X(CLOCK, REAL, adjusted, "_adjusted")

/* The order of `OutputParts` in the package. */
enum {
    PACER, LINE, METER, PACER_STATS, SENDER, STREAM, STREAM_STATS, WRITER, HISTORY, REPAIR, UPLINK, PATH, PROTECTOR,
    FEEDBACK, DELAY, OUTPUT_STATES, NOW = OUTPUT_STATES, PREPARED, SLOTS, SENT_AT, SENT_SIZE, TIME_ID, NUMBER_ID,
    OUTPUT_PARTS
};

#define OUTPUT_FIELDS(X)                                                                                               \
    X(PACER, MAYBE, ceiling, "ceiling")                                                                                \
    X(PACER, FLAG, pacer_wants_keyframe, "wants_keyframe")                                                             \
    X(PACER, FLAG, skipping, "_skipping")                                                                              \
    X(PACER, REAL, tokens, "_tokens")                                                                                  \
    X(PACER, REAL, tokens_at, "_tokens_at")                                                                            \
    X(PACER, MAYBE, sending, "_sending")                                                                               \
    X(PACER, REAL, frame_media, "_frame_media")                                                                        \
    X(PACER, REAL, frame_release, "_frame_release")                                                                    \
    X(PACER, REAL, floor_bitrate, "_floor_bitrate")                                                                    \
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
    X(SENDER, REAL, last_sent, "last_sent")                                                                            \
    X(SENDER, MAYBE, owed, "owed_since")                                                                               \
    X(SENDER, REAL, next_report, "_next_report")                                                                       \
    X(SENDER, FLAG, keyframe_wanted, "_keyframe_wanted")                                                               \
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
    X(REPAIR, FLAG, tails_twice, "tails_twice")                                                                        \
    X(UPLINK, FLAG, probing, "probing")                                                                                \
    X(PATH, FLAG, gso, "gso")                                                                                          \
    X(FEEDBACK, INT, newest, "_newest")

/* Types of state: those of the parts, and those of what only is looked at. */
enum {
    OF_OUTPUT = INPUT_PARTS, MEDIA_OUT = OF_OUTPUT + OUTPUT_STATES, OUTPUTS, RTSP_SOURCE, STATE_TRANSCODER,
    STATE_SOUND_ENCODER, STATE_SOUND_CLOCK, STATE_TYPES
};

/* Attributes that are objects, and others of types that are no parts. */
#define OTHER_FIELDS(X)                                                                                                \
    X(SESSION, OBJECT, session_state, "state")                                                                         \
    X(PARSER, OBJECT, lists, "packets")                                                                                \
    X(PARSER, OBJECT, rest, "_pending")                                                                                \
    X(PIPELINE, OBJECT, output, "output")                                                                              \
    X(PIPELINE, OBJECT, viewers, "viewers")                                                                            \
    X(PIPELINE, OBJECT, rendition, "rendition")                                                                        \
    X(PIPELINE, OBJECT, capture, "capture")                                                                            \
    X(PIPELINE, OBJECT, tap, "tap")                                                                                    \
    X(PIPELINE, OBJECT, last_media, "last_media")                                                                      \
    X(PIPELINE, OBJECT, last_frame, "last_frame")                                                                      \
    X(PIPELINE, OBJECT, wake, "wake")                                                                                  \
    X(PIPELINE, OBJECT, ear, "_ear")                                                                                   \
    X(TRACK, OBJECT, clock, "clock")                                                                                   \
    X(PASSTHROUGH, OBJECT, out, "_out")                                                                                \
    X(PASSTHROUGH, OBJECT, earlier, "earlier")                                                                         \
    X(PASSTHROUGH, OBJECT, held, "held")                                                                               \
    X(PASSTHROUGH, OBJECT, carry, "_carry")                                                                            \
    X(PASSTHROUGH, OBJECT, collected, "_collected")                                                                    \
    X(PASSTHROUGH, OBJECT, parameter_sets, "parameter_sets")                                                           \
    X(UNITS, OBJECT, fragment, "_fragment")                                                                            \
    X(REORDER, OBJECT, order_held, "_held")                                                                            \
    X(OF_OUTPUT + PACER, OBJECT, audio, "_audio")                                                                      \
    X(OF_OUTPUT + PACER, OBJECT, pacer_held, "_held")                                                                  \
    X(OF_OUTPUT + PACER, OBJECT, ready, "_ready")                                                                      \
    X(OF_OUTPUT + LINE, OBJECT, buckets, "_buckets")                                                                   \
    X(OF_OUTPUT + SENDER, OBJECT, sender_clock, "clock")                                                               \
    X(OF_OUTPUT + STREAM, OBJECT, extensions, "extensions")                                                            \
    X(OF_OUTPUT + HISTORY, INT, kept_bytes, "bytes")                                                                   \
    X(OF_OUTPUT + HISTORY, REAL, kept_seconds, "_seconds")                                                             \
    X(OF_OUTPUT + HISTORY, INT, most_kept, "_max_bytes")                                                               \
    X(OF_OUTPUT + HISTORY, OBJECT, resent, "_resent")                                                                  \
    X(OF_OUTPUT + PROTECTOR, INT, failures, "failures")                                                                \
    X(OF_OUTPUT + HISTORY, OBJECT, kept_runs, "_runs")                                                                 \
    X(OF_OUTPUT + PATH, OBJECT, packed, "_packed")                                                                     \
    X(OF_OUTPUT + PATH, OBJECT, sock, "_sock")                                                                         \
    X(OF_OUTPUT + DELAY, OBJECT, samples, "_samples")                                                                  \
    X(MEDIA_OUT, FLAG, connected, "connected")                                                                         \
    X(MEDIA_OUT, OBJECT, out_capture, "capture")                                                                       \
    X(MEDIA_OUT, OBJECT, out_sender, "_sender")                                                                        \
    X(OUTPUTS, OBJECT, arranged, "_arranged")                                                                          \
    X(RTSP_SOURCE, REAL, report_due, "_report_due")                                                                    \
    X(RTSP_SOURCE, REAL, alive_at, "_alive_at")                                                                        \
    X(RTSP_SOURCE, NUMBER, unlooked, "_unlooked")                                                                      \
    X(MEDIA_OUT, OBJECT, out_sound, "_sound")                                                                          \
    X(INPUT, INT, sound_frames, "frames")                                                                              \
    X(INPUT, OBJECT, transcoder, "_transcoder")                                                                        \
    X(INPUT, NUMBER, opus_position, "_position")                                                                       \
    X(INPUT, INT, opus_expected, "_expected")                                                                          \
    X(INPUT, REAL, opus_check_at, "_check_at")                                                                         \
    X(INPUT, OBJECT, opus_before, "_before")                                                                           \
    X(STATE_TRANSCODER, REAL, expected_media, "_expected")                                                             \
    X(STATE_TRANSCODER, REAL, latest_media, "_latest")                                                                 \
    X(STATE_TRANSCODER, FLAG, hole, "_hole")                                                                           \
    X(STATE_TRANSCODER, OBJECT, chain, "_chain")                                                                       \
    X(STATE_SOUND_ENCODER, NUMBER, position, "position")                                                               \
    X(STATE_SOUND_ENCODER, INT, cut_bytes, "_cut")                                                                     \
    X(STATE_SOUND_ENCODER, OBJECT, pending_samples, "_pending")                                                        \
    X(STATE_SOUND_CLOCK, REAL, sound_error, "_error")                                                                  \
    X(STATE_SOUND_CLOCK, REAL, sound_budget, "_budget")                                                                \
    X(STATE_SOUND_CLOCK, REAL, sound_now, "_now")                                                                      \
    X(STATE_SOUND_CLOCK, REAL, sound_corrected, "_corrected")                                                          \
    X(STATE_SOUND_CLOCK, MAYBE, due_since, "due_since")

#define FIELD_INDEX(part, type, name, attribute) f_##name,
enum { INPUT_FIELDS(FIELD_INDEX) INPUT_COUNT };
enum { OUTPUT_FIELDS(FIELD_INDEX) OUTPUT_COUNT };
enum { OTHER_FIELDS(FIELD_INDEX) OTHER_COUNT };

/* In which slot of its type each of the others is. */
extern int other_slots[OTHER_COUNT];

static inline Value *
slot_of(PyObject *object, int other)
{
    return &((State *)object)->v[other_slots[other]];
}

/* An attribute of an object of that type: borrowed, NULL where it is not there. */
#define ATTRIBUTE(object, name) (slot_of(object, f_##name)->o)

/* Whether this is an object of that type of state. */
int is_state(PyObject *object, int type);

/* Where a part of an input keeps one of its numbers (INPUT_FIELDS). */
Value *input_value(PyObject *object, int field);

/* Where an object keeps the attribute of this name, and what is kept there; NULL where it is no slot of it. */
Value *find_slot(PyObject *object, const char *name, Type *type);

/* Let go of what stands in a slot, and have it hold `value` (a reference that is taken over; NULL for nothing). */
void set_object(Value *slot, PyObject *value);

/* The numbers of these parts, which are what they should be; None as a part has only zeros. */
void load_input(PyObject *const *parts, Value *values);
void load_output(PyObject *const *parts, Value *values);
void store_input(PyObject *const *parts, const Value *values);
void store_output(PyObject *const *parts, const Value *values);

int add_states(PyObject *module);

#endif
