/* Sound on its way in: a wake of one packet with one access unit of AAC, and nothing else, up to the unit and its time, or
 * to what is sent of it (transcoding.c). */

#include "wake.h"

enum { AU_HEADERS = 4, AU_HEADER_BITS = 16 }; /* RFC 3640, 3.2.1: the length in bits, and one header of AAC-hbr */

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
    if (parts[UNITS] == Py_None || work->packet_count != 1 || work->other_count || !receive_packets(work, parts, now) || I(missing) ||
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

PyObject *
hear_bytes(Wake *self, PyObject *const *parts, PyObject *lists, PyObject *buffer, PyObject *now_object)
{
    Work work = {.channel = self->channel, .control = self->control};
    const uint8_t *unit;
    size_t size;
    work.data = (const uint8_t *)PyBytes_AsString(buffer);
    work.size = (size_t)PyBytes_Size(buffer);
    double now = PyFloat_AsDouble(now_object);
    if (work.size > INT32_MAX || !split(&work, lists) || !work_out_unit(&work, parts, now, &unit, &size)) {
        PyErr_Clear();
        return PyLong_FromLong(0);
    }
    double media = work.runs[0].media;
    PyObject *bytes = PyBytes_FromStringAndSize((const char *)unit, (Py_ssize_t)size), *heard = NULL;
    if (bytes == NULL || keep_packets(&work, parts, self->kind, now_object))
        heard = NULL;
    else if (self->transcoding.encode == NULL || !follows_on(&self->transcoding, media, now))
        heard = Py_BuildValue("(Od)", bytes, media);
    else if (!transcode(self, &work, bytes, media, now_object))
        heard = PyLong_FromLong(DONE);
    Py_XDECREF(bytes);
    return heard;
}
