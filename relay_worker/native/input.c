/* The way in of a plain wake: frames, packets, media times; payloads are for pictures.c. */

#include "wake.h"

static const double MAX_RATE = 20000000.0, MAX_BURST = 5000000.0; /* media/track_input.py */
static const double ARRIVAL_WEIGHT = 0.1;                         /* media/inputs.py */
static const double LONGEST_STEP = 0.1;                           /* rtp/wait_clock.py */

/* RtspParser.receive_data: the frames, all of which must be of known channels, and nothing but the beginning of another
 * behind them. */
int
split(Work *work, PyObject *lists)
{
    size_t at = 0;
    while (work->size - at >= FRAME_HEADER && work->data[at] == DOLLAR) {
        size_t size = read16(work->data + at + 2);
        if (size > work->size - at - FRAME_HEADER)
            break;
        Piece piece = {(uint32_t)(at + FRAME_HEADER), (uint32_t)size, 0};
        int channel = work->data[at + 1];
        if (channel == work->channel) {
            if (work->packet_count == MAX_PACKETS)
                return 0;
            work->packets[work->packet_count++] = piece;
        }
        else {
            if (channel == work->control || work->other_count == MAX_OTHERS)
                return 0;
            PyObject *key = PyLong_FromLong(channel);
            PyObject *list = key == NULL ? NULL : PyDict_GetItemWithError(lists, key);
            Py_XDECREF(key);
            if (list == NULL || !PyList_CheckExact(list))
                return 0;
            work->other_channels[work->other_count] = (uint8_t)channel;
            work->others[work->other_count++] = piece;
        }
        at += FRAME_HEADER + size;
    }
    work->taken = at;
    return at == work->size || work->data[at] == DOLLAR;
}

/* ReorderBuffer.receive_view, of packets that are the next ones: whether nothing is waited for. Their numbers are for
 * `receive`. */
static int
begin_order(Work *work, PyObject *const *parts, double now)
{
    if (parts[REORDER] == Py_None)
        return 1;
    if (!is_empty(ATTRIBUTE(parts[REORDER], order_held)) || I(order_next) != ((I(highest) + 1) & 0xFFFF))
        return 0;
    if (!isnan(R(wait_arrival))) {
        double since = now - R(wait_arrival);
        R(waited) += since < LONGEST_STEP ? since : LONGEST_STEP;
    }
    R(wait_arrival) = now;
    I(order_next) = (I(order_next) + work->packet_count) & 0xFFFF;
    return 1;
}

/* RtpReceiver.receive_all, or receive_packet for each: runs of packets that share a timestamp. */
static int
receive(Work *work, PyObject *const *parts, double now)
{
    Run *run = NULL;
    int any_type = parts[REORDER] != Py_None && I(payload_type) == NO_NUMBER;
    for (int index = 0; index < work->packet_count; index++) {
        const Piece *packet = &work->packets[index];
        const uint8_t *at = work->data + packet->offset;
        if (packet->size < RTP_HEADER || at[0] != 0x80)
            return 0;
        int64_t sequence = read16(at + 2), timestamp = read32(at + 4);
        /* A number that wraps begins a run of its own there: once in 65536 packets, and no plain one here. */
        if (sequence != I(highest) + 1 || read32(at + 8) != I(ssrc) || ((at[1] & 0x7F) != I(payload_type) && !any_type))
            return 0;
        if (run == NULL || timestamp != run->timestamp) {
            if (work->run_count == MAX_RUNS)
                return 0;
            run = &work->runs[work->run_count++];
            run->timestamp = timestamp;
            run->first = index;
            if (timestamp != I(last_timestamp)) {
                I(last_timestamp) = timestamp;
                double transit = now * (double)I(clock_rate) - (double)timestamp;
                if (!isnan(R(transit))) {
                    double deviation = fabs(transit - R(transit));
                    if (deviation < 10.0 * (double)I(clock_rate))
                        R(jitter) += (deviation - R(jitter)) / 16;
                }
                R(transit) = transit;
            }
        }
        run->end = index + 1;
        I(highest) = sequence;
        I(packets)++;
        I(bytes) += packet->size;
    }
    return 1;
}

/* TrackInput.admit */
static int
admit(Work *work, double now)
{
    double ahead = R(ahead) + (double)I(bytes) - (double)I(metered) - (now - R(metered_at)) * MAX_RATE / 8;
    R(ahead) = ahead > 0.0 ? ahead : 0.0;
    I(metered) = I(bytes);
    R(metered_at) = now;
    if (R(ahead) > (I(too_fast) ? MAX_BURST / 2 : MAX_BURST))
        return 0;
    I(too_fast) = 0;
    return 1;
}

int
has_payloads(const Run *run)
{
    return run->out_end > run->out_first;
}

/* VideoInput._note_arrival */
static void
note_arrival(Work *work, double now)
{
    if (I(frames) == I(arrived))
        return;
    if (R(arrived_at) != 0) {
        double step = (now - R(arrived_at)) / (double)(I(frames) - I(arrived));
        R(arrival_interval) += ARRIVAL_WEIGHT * (step - R(arrival_interval));
    }
    I(arrived) = I(frames);
    R(arrived_at) = now;
}

/* What VideoInput.receive_packets does last. */
static void
note_keyframe(Work *work, double now)
{
    if (I(keyframes) == I(keyframes_noted))
        return;
    I(keyframes_noted) = I(keyframes);
    if (R(keyframe_at) != 0)
        R(keyframe_interval) = now - R(keyframe_at);
    R(keyframe_at) = now;
}

/* A history keeps all of the bytes: what is not the video's must not be most of them. */
static int
is_mostly_video(const Work *work)
{
    size_t video = 0;
    for (int index = 0; index < work->packet_count; index++)
        video += work->packets[index].size;
    return work->packet_count && work->size <= 2 * video + 4096;
}

int
receive_packets(Work *work, PyObject *const *parts, double now)
{
    load_input(parts, work->v);
    if (I(is_lost) || I(carried_loss) || I(ssrc) != I(input_ssrc) || I(ssrc) == NO_NUMBER || I(clock_rate) < 1)
        return 0;
    R(last_data) = R(pipeline_now) = now;
    I(garbage_run) = 0;
    /* The track is metered before the packets of this wake are counted. */
    return admit(work, now) && begin_order(work, parts, now) && receive(work, parts, now);
}

/* What the passthrough has to be, apart from numbers. */
static int
begin_pictures(Work *work, PyObject *const *parts)
{
    PyObject *passthrough = work->passthrough = parts[PASSTHROUGH];
    PyObject *carry = ATTRIBUTE(passthrough, carry);
    if (!is_empty(ATTRIBUTE(passthrough, out)) || !is_empty(ATTRIBUTE(passthrough, earlier)) ||
        ATTRIBUTE(passthrough, held) != Py_None || ATTRIBUTE(passthrough, collected) != Py_None || carry == NULL)
        return 0;
    if (carry != Py_None) {
        if (!PyBytes_CheckExact(carry) || PyBytes_Size(carry) > MOST_PAYLOAD)
            return 0;
        work->has_carry = 1;
        work->carried = (size_t)PyBytes_Size(carry);
        memcpy(work->carry, PyBytes_AsString(carry), work->carried);
    }
    if (I(waits) || I(undated) || I(max_payload) < LEAST_PAYLOAD || I(max_payload) > MOST_PAYLOAD)
        return 0;
    R(due) = 0.0;
    return 1;
}

int
work_out_input(Work *work, PyObject *const *parts, double now)
{
    if (parts[PASSTHROUGH] == Py_None || !is_mostly_video(work) || !receive_packets(work, parts, now) || !begin_pictures(work, parts) ||
        !pass_pictures(work))
        return 0;
    for (int index = 0; index < work->run_count; index++)
        if (has_payloads(&work->runs[index]) && !map_time(work, &work->runs[index], now))
            return 0;
    note_arrival(work, now);
    note_keyframe(work, now);
    return 1;
}

int
keep_packets(Work *work, PyObject *const *parts, PyObject *kind, PyObject *now)
{
    store_input(parts, work->v);
    if (set_item(ATTRIBUTE(parts[PIPELINE], last_media), kind, now))
        return -1;
    PyObject *rest = PyBytes_FromStringAndSize((const char *)work->data + work->taken,
                                               (Py_ssize_t)(work->size - work->taken));
    if (rest == NULL)
        return -1;
    set_object(slot_of(parts[PARSER], f_rest), rest);
    return 0;
}

/* What the parser, the receiver and the passthrough remember. */
int
keep_input(Work *work, PyObject *const *parts, PyObject *kind, PyObject *now)
{
    int has_frame = 0;
    for (int index = 0; index < work->run_count; index++)
        has_frame |= has_payloads(&work->runs[index]);
    int failed = keep_packets(work, parts, kind, now) ||
                 (has_frame && set_item(ATTRIBUTE(parts[PIPELINE], last_frame), kind, now));
    if (!failed && work->carry_changed) {
        PyObject *carry = work->has_carry ? PyBytes_FromStringAndSize((const char *)work->carry, (Py_ssize_t)work->carried)
                                          : Py_NewRef(Py_None);
        failed = carry == NULL;
        if (!failed)
            set_object(slot_of(parts[PASSTHROUGH], f_carry), carry);
    }
    return failed ? -1 : 0;
}

int
leave_others(const Work *work, PyObject *lists)
{
    int failed = 0;
    for (int index = 0; !failed && index < work->other_count; index++) {
        PyObject *key = PyLong_FromLong(work->other_channels[index]);
        PyObject *list = key == NULL ? NULL : PyDict_GetItemWithError(lists, key);
        Py_XDECREF(key);
        PyObject *packet = PyBytes_FromStringAndSize((const char *)work->data + work->others[index].offset,
                                                     (Py_ssize_t)work->others[index].size);
        failed = list == NULL || packet == NULL || PyList_Append(list, packet);
        Py_XDECREF(packet);
    }
    return failed ? -1 : 0;
}
