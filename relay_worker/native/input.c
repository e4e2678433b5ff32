/* The way in of a plain wake: frames, packets, payloads of pictures, their media time. */

#include "wake.h"

static const double MAX_RATE = 20000000.0, MAX_BURST = 5000000.0;                  /* media/track_input.py */
static const double VIDEO_CLOCK_RATE = 90000.0, MAX_INTERVAL = 45000.0;            /* media/access_unit_ends.py */
static const double ARRIVAL_WEIGHT = 0.1;                                          /* media/inputs.py */

/* RtspParser.receive_data: the frames, all of which must be of known channels, and nothing but the beginning of another
 * behind them. */
static int
split(Work *work, PyObject *lists)
{
    size_t at = 0;
    while (work->size - at >= 4 && work->data[at] == DOLLAR) {
        size_t size = read16(work->data + at + 2);
        if (size > work->size - at - 4)
            break;
        Piece piece = {(uint32_t)(at + 4), (uint32_t)size, 0};
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
        at += 4 + size;
    }
    work->taken = at;
    /* A history keeps all of these bytes: what is not the video's must not be most of them. */
    size_t video = 0;
    for (int index = 0; index < work->packet_count; index++)
        video += work->packets[index].size;
    return work->packet_count && work->size <= 2 * video + 4096 && (at == work->size || work->data[at] == DOLLAR);
}

/* RtpReceiver.receive_all: runs of packets that share a timestamp. */
static int
receive(Work *work, double now)
{
    Run *run = NULL;
    for (int index = 0; index < work->packet_count; index++) {
        const Piece *packet = &work->packets[index];
        const uint8_t *at = work->data + packet->offset;
        if (packet->size < RTP_HEADER || at[0] != 0x80)
            return 0;
        int64_t sequence = read16(at + 2), timestamp = read32(at + 4);
        /* A number that wraps begins a run of its own there: once in 65536 packets, and no plain one here. */
        if (sequence != I(highest) + 1 || read32(at + 8) != I(ssrc) || (at[1] & 0x7F) != I(payload_type))
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

/* Payloads from here on are copied: those of this wake so far, and room for all that may come. */
static int
begin_cut(Work *work)
{
    size_t all = work->size + work->carried, room = (size_t)I(max_payload) - 2;
    work->cut_size = all + 2 * (all / room + 2 * MAX_PACKETS);
    work->cut = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)work->cut_size);
    if (work->cut == NULL)
        return 0;
    uint8_t *to = (uint8_t *)PyBytes_AsString(work->cut);
    for (int index = 0; index < work->payload_count; index++) {
        Piece *payload = &work->payloads[index];
        if (payload->size > work->cut_size - work->cut_used)
            return 0;
        memcpy(to + work->cut_used, work->data + payload->offset, payload->size);
        payload->offset = (uint32_t)work->cut_used;
        work->cut_used += payload->size;
    }
    return 1;
}

/* A payload of `head` and `tail`, which is copied; without a head and while nothing was cut, it stays where it is. */
static int
emit(Work *work, const uint8_t *head, size_t head_size, const uint8_t *tail, size_t tail_size, int marker)
{
    if (work->payload_count == MAX_PAYLOADS)
        return 0;
    Piece *payload = &work->payloads[work->payload_count++];
    payload->size = (uint32_t)(head_size + tail_size);
    payload->marker = marker;
    if (work->cut == NULL) {
        payload->offset = (uint32_t)(tail - work->data);
        return !head_size;
    }
    if (payload->size > work->cut_size - work->cut_used)
        return 0;
    payload->offset = (uint32_t)work->cut_used;
    uint8_t *to = (uint8_t *)PyBytes_AsString(work->cut) + work->cut_used;
    if (head_size)
        memcpy(to, head, head_size);
    memcpy(to + head_size, tail, tail_size);
    work->cut_used += payload->size;
    return 1;
}

/* H264Passthrough._recut */
static int
recut(Work *work, const uint8_t *data, size_t size, int ends)
{
    if (work->cut == NULL && !begin_cut(work))
        return 0;
    uint8_t head[2 + MOST_PAYLOAD];
    size_t room = (size_t)I(max_payload) - 2;
    if (work->carried > room || room > MOST_PAYLOAD)
        return 0;
    work->carry_changed = 1;
    head[0] = (uint8_t)((I(header) & 0xE0) | FU_A);
    while (work->carried + size > room) {
        size_t part = room - work->carried;
        head[1] = (uint8_t)((I(header) & 0x1F) | I(carry_start));
        memcpy(head + 2, work->carry, work->carried);
        if (!emit(work, head, 2 + work->carried, data, part, 0))
            return 0;
        I(carry_start) = 0;
        work->carried = 0;
        data += part;
        size -= part;
    }
    if (!ends) {
        memcpy(work->carry + work->carried, data, size);
        work->carried += size;
        work->has_carry = 1;
        return 1;
    }
    static const uint8_t zero[1] = {0};
    if (!(work->carried + size)) {
        data = zero;
        size = 1;
    }
    head[1] = (uint8_t)((I(header) & 0x1F) | I(carry_start) | FU_END);
    memcpy(head + 2, work->carry, work->carried);
    if (!emit(work, head, 2 + work->carried, data, size, 0))
        return 0;
    work->carried = 0;
    work->has_carry = 0;
    return 1;
}

/* H264Passthrough._begins_plainly */
static int
begin_picture(Work *work, const uint8_t *at, size_t size, int marker, int64_t timestamp)
{
    if (!I(closed) || I(timed) || marker || I(wants_keyframe) || I(shift) || size < 3 || (at[0] & 0x1F) != FU_A ||
        at[1] != (FU_START | NAL_SLICE) || at[2] < 0x80 || I(starts_late))
        return 0;
    double step = (double)((timestamp - I(raw)) & 0xFFFFFFFF);
    if (step < MAX_INTERVAL) {
        if (I(sharing) < 1)
            return 0;
        R(interval) = step / VIDEO_CLOCK_RATE / (double)I(sharing);
    }
    I(sent_timestamp) = I(stamp) = I(raw) = timestamp;
    I(sharing) = 1;
    I(closed) = I(marked) = I(key) = 0;
    I(sent) = I(in_fragment) = 1;
    I(sets_seen) = I(carry_start) = 0;
    I(header) = (at[0] & 0xE0) | NAL_SLICE;
    if (at[2] >> 4 == 0xA || at[2] >> 2 == 0x27)
        I(b_frames)++;
    if (size <= (size_t)I(max_payload))
        return emit(work, NULL, 0, at, size, 0);
    I(carry_start) = FU_START;
    return recut(work, at + 2, size - 2, 0);
}

/* H264Passthrough._middle */
static int
go_on(Work *work, const uint8_t *at, size_t size, int marker)
{
    if (!I(in_fragment) || size < 3 || (at[0] & 0x1F) != FU_A || at[1] >= FU_START)
        return 0;
    int ends = (at[1] & FU_END) != 0;
    if (ends ? I(mistrusted) || I(omits) || I(distrusted) || (marker && I(key)) : marker)
        return 0; /* the end of a keyframe is noted elsewhere as well */
    if (work->has_carry) {
        if (!recut(work, at + 2, size - 2, ends))
            return 0;
        if (ends)
            work->payloads[work->payload_count - 1].marker = marker;
    }
    else if (size > (size_t)I(max_payload) || !emit(work, NULL, 0, at, size, marker))
        return 0;
    if (ends) { /* _end_fragments */
        I(in_fragment) = 0;
        I(marked) = marker;
        if (marker) {
            I(closed) = 1;
            I(frames)++;
        }
    }
    return 1;
}

/* H264Passthrough.receive_run, for each run */
static int
pass(Work *work)
{
    for (int number = 0; number < work->run_count; number++) {
        Run *run = &work->runs[number];
        run->out_first = work->payload_count;
        for (int index = run->first; index < run->end; index++) {
            const uint8_t *packet = work->data + work->packets[index].offset, *at = packet + RTP_HEADER;
            size_t size = work->packets[index].size - RTP_HEADER;
            int marker = packet[1] > 127;
            if (!(run->timestamp == I(stamp) ? go_on(work, at, size, marker)
                                             : begin_picture(work, at, size, marker, run->timestamp)))
                return 0;
        }
        run->out_end = work->payload_count;
        run->sent_timestamp = I(sent_timestamp);
        for (int index = run->out_first; index < run->out_end; index++)
            run->bytes += work->payloads[index].size;
    }
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
    if (I(frames) == work->arrived)
        return;
    if (work->arrived_at != 0) {
        double step = (now - work->arrived_at) / (double)(I(frames) - work->arrived);
        R(arrival_interval) += ARRIVAL_WEIGHT * (step - R(arrival_interval));
    }
    work->arrived = I(frames);
    work->arrived_at = now;
}

/* What the parts other than numbers have to be. */
static int
begin(Work *work, PyObject *const *parts, double now)
{
    PyObject *passthrough = parts[PASSTHROUGH];
    double frames, at;
    if (!load_input(parts, work->before) ||
        !load_pair(parts[INPUT], n__arrived, &frames, &at) || !is_none(passthrough, n__out, 1) ||
        !is_none(passthrough, n_earlier, 1) || !is_none(passthrough, n_held, 0) || !is_none(passthrough, n__collected, 0))
        return 0;
    memcpy(work->v, work->before, sizeof work->v);
    work->arrived = (int64_t)frames;
    work->arrived_at = at;
    PyObject *carry = PyObject_GetAttr(passthrough, names[n__carry]);
    if (carry == NULL)
        return 0;
    int fits = carry == Py_None || (PyBytes_CheckExact(carry) && PyBytes_Size(carry) <= MOST_PAYLOAD);
    if (fits && carry != Py_None) {
        work->has_carry = 1;
        work->carried = (size_t)PyBytes_Size(carry);
        memcpy(work->carry, PyBytes_AsString(carry), work->carried);
    }
    Py_DECREF(carry);
    if (!fits || I(is_lost) || I(waits) || I(undated) || I(carried_loss) || I(ssrc) != I(input_ssrc) ||
        I(max_payload) < LEAST_PAYLOAD || I(max_payload) > MOST_PAYLOAD || I(clock_rate) < 1)
        return 0;
    R(last_data) = R(pipeline_now) = now;
    R(due) = 0.0;
    I(garbage_run) = 0;
    return 1;
}

int
work_out_input(Work *work, PyObject *const *parts, PyObject *lists, double now)
{
    /* The track is metered before the packets of this wake are counted. */
    if (!begin(work, parts, now) || !split(work, lists) || !admit(work, now) || !receive(work, now) || !pass(work))
        return 0;
    for (int index = 0; index < work->run_count; index++)
        if (has_payloads(&work->runs[index]) && !map_time(work, &work->runs[index], now))
            return 0;
    note_arrival(work, now);
    return 1;
}

/* What the parser, the receiver and the passthrough remember, and packets of others in the parser's lists. */
int
keep_input(Work *work, PyObject *const *parts, PyObject *lists, PyObject *video, PyObject *now)
{
    int has_frame = 0;
    for (int index = 0; index < work->run_count; index++)
        has_frame |= has_payloads(&work->runs[index]);
    if (store_input(parts, work->before, work->v) ||
        set_item(parts[PIPELINE], n_last_media, video, now) ||
        (has_frame && set_item(parts[PIPELINE], n_last_frame, video, now)))
        return -1;
    if (set_pair(parts[INPUT], n__arrived, PyLong_FromLongLong(work->arrived), PyFloat_FromDouble(work->arrived_at)))
        return -1;
    PyObject *rest = PyBytes_FromStringAndSize((const char *)work->data + work->taken,
                                               (Py_ssize_t)(work->size - work->taken));
    int failed = rest == NULL || PyObject_SetAttr(parts[PARSER], names[n__pending], rest);
    Py_XDECREF(rest);
    if (!failed && work->carry_changed) {
        PyObject *carry = work->has_carry ? PyBytes_FromStringAndSize((const char *)work->carry, (Py_ssize_t)work->carried)
                                          : Py_NewRef(Py_None);
        failed = carry == NULL || PyObject_SetAttr(parts[PASSTHROUGH], names[n__carry], carry);
        Py_XDECREF(carry);
    }
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
