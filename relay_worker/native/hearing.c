/* Sound on its way in: a wake of one packet with one access unit of AAC, and nothing else, up to the unit and its time, or
 * to what is sent of it (transcoding.c); or with one packet of Opus, up to what is sent. */

#include "wake.h"

enum { AU_HEADERS = 4, AU_HEADER_BITS = 16 }; /* RFC 3640, 3.2.1: the length in bits, and one header of AAC-hbr */
enum { MOST_TICKS = 5760 };                  /* rtp/opus.py, MAX_TICKS */

/* AacDepacketizer.receive_payload, of a payload that is one whole access unit: its bytes, or 0. */
static size_t
unit_size(const uint8_t *payload, size_t size)
{
    if (size <= AU_HEADERS || read16(payload) != AU_HEADER_BITS || payload[3] & 7)
        return 0;
    size_t unit = read16(payload + 2) >> 3;
    return unit <= size - AU_HEADERS ? unit : 0;
}

/* AudioInput.receive_packets, up to the transcoder. */
static int
work_out_unit(Work *work, PyObject *const *parts, double now, const uint8_t **unit, size_t *size)
{
    if (work->packet_count != 1 || work->other_count || !receive_packets(work, parts, now) || I(missing) ||
        !I(plain_headers) || !is_empty(ATTRIBUTE(parts[UNITS], fragment)))
        return 0;
    Run *run = &work->runs[0];
    const uint8_t *payload = work->data + work->packets[0].offset + RTP_HEADER;
    *size = unit_size(payload, work->packets[0].size - RTP_HEADER);
    *unit = payload + AU_HEADERS;
    if (!*size || run->timestamp == I(unit_timestamp)) /* one that stands still says nothing */
        return 0;
    run->sent_timestamp = I(unit_timestamp) = run->timestamp;
    I(taken_whole)++;
    return map_time(work, run, now);
}

/* rtp/opus.py, packet_ticks; 0 of a packet that is malformed. */
static int64_t
packet_ticks(const uint8_t *packet, size_t size)
{
    static const int64_t FRAME_TICKS[32] = {
        480, 960, 1920, 2880, 480, 960, 1920, 2880, 480, 960, 1920, 2880, 480, 960, 480, 960,
        120, 240, 480, 960, 120, 240, 480, 960, 120, 240, 480, 960, 120, 240, 480, 960,
    };
    if (!size)
        return 0;
    int64_t ticks = FRAME_TICKS[packet[0] >> 3];
    int code = packet[0] & 3;
    if (code < 3)
        return code ? 2 * ticks : ticks;
    ticks *= size > 1 ? packet[1] & 0x3F : 0;
    return ticks <= MOST_TICKS ? ticks : 0;
}

/* OpusInput.receive_packets, of a packet that follows the one before it: the payload, and how long it lasts. */
static int64_t
work_out_opus(Work *work, PyObject *const *parts, double now, const uint8_t **payload, size_t *size)
{
    PyObject *input = parts[INPUT];
    if (work->packet_count != 1 || work->other_count || !receive_packets(work, parts, now))
        return 0;
    *payload = work->data + work->packets[0].offset + RTP_HEADER;
    *size = work->packets[0].size - RTP_HEADER;
    int64_t timestamp = work->runs[0].timestamp, position = slot_of(input, f_opus_position)->i;
    if (*size > MOST_PAYLOAD || position == NO_NUMBER || timestamp != slot_of(input, f_opus_expected)->i ||
        !(now < slot_of(input, f_opus_check_at)->r))
        return 0;
    I(unit_timestamp) = timestamp;
    I(taken_whole)++;
    return packet_ticks(*payload, *size);
}

/* The same up to what is sent: 1, 0 where nothing has happened, -1 with an exception. */
static int
pass_opus(Wake *self, Work *work, PyObject *const *parts, PyObject *now)
{
    const uint8_t *payload;
    size_t size;
    int64_t ticks = work_out_opus(work, parts, PyFloat_AsDouble(now), &payload, &size);
    if (!ticks)
        return 0;
    PyObject *input = parts[INPUT], *material = PyBytes_FromStringAndSize((const char *)payload, (Py_ssize_t)size);
    if (material == NULL || keep_packets(work, parts, self->kind, now)) {
        Py_XDECREF(material);
        return -1;
    }
    int64_t *position = &slot_of(input, f_opus_position)->i;
    Run run = {.out_end = 1, .bytes = (int64_t)size, .media = (double)*position / OPUS_CLOCK};
    work->payloads[0] = (Piece){0, (uint32_t)size, 0};
    work->payload_count = 1;
    slot_of(input, f_opus_expected)->i = (work->runs[0].timestamp + ticks) & 0xFFFFFFFF;
    *position += ticks;
    slot_of(input, f_sound_frames)->i++;
    set_object(slot_of(input, f_opus_before), Py_NewRef(material));
    int failed = forward_sound(self, work, &run, material, now, n__came);
    Py_DECREF(material);
    return failed ? -1 : 1;
}

PyObject *
hear_bytes(Wake *self, PyObject *const *parts, PyObject *lists, PyObject *buffer, PyObject *now_object)
{
    Work work = {.channel = self->channel, .control = self->control};
    const uint8_t *unit;
    size_t size;
    work.data = (const uint8_t *)PyBytes_AsString(buffer);
    work.size = (size_t)PyBytes_Size(buffer);
    double now = PyFloat_AsDouble(now_object);
    int is_plain = work.size <= INT32_MAX && split(&work, lists);
    if (is_plain && parts[UNITS] == Py_None && parts[PASSTHROUGH] == Py_None) { /* Opus, whose packets are its units */
        int passed = pass_opus(self, &work, parts, now_object);
        if (passed < 0)
            return NULL;
        PyErr_Clear();
        return PyLong_FromLong(passed ? DONE : 0);
    }
    if (!is_plain || parts[UNITS] == Py_None || !work_out_unit(&work, parts, now, &unit, &size)) {
        PyErr_Clear();
        return PyLong_FromLong(0);
    }
    double media = work.runs[0].media;
    if (keep_packets(&work, parts, self->kind, now_object))
        return NULL;
    if (self->transcoding.encode == NULL || !follows_on(&self->transcoding, media, now))
        return Py_BuildValue("(y#d)", unit, (Py_ssize_t)size, media);
    return transcode(self, &work, unit, size, media, now_object) ? NULL : PyLong_FromLong(DONE);
}
