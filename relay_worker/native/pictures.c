/* The payloads of plain pictures: H264Passthrough and its bases, where nothing is missing, waits or has to be put right.
 *
 * Plain are, of a camera whose marks are right: pictures of one slice or several, each in FU-A fragments, in a packet of
 * its own or in a STAP-A, from the first unit behind a marked picture on; parameter sets that are known, delimiters and SEI
 * before them. Units are cut anew where they are too long, and known parameter sets are put before a keyframe without.
 */

#include "wake.h"

static const double VIDEO_CLOCK_RATE = 90000.0, MAX_INTERVAL = 45000.0; /* media/access_unit_ends.py */

enum { NAL_SLICE = 1, NAL_IDR = 5, NAL_SEI, NAL_SPS, NAL_PPS, NAL_AUD, STAP_A = 24 }; /* rtp/h264.py */
enum { STAGE_PREFIX = 1, STAGE_PICTURE };                                             /* media/access_unit_ends.py */

/* --- parameter sets ------------------------------------------------------------------------------------------------ */

/* An attribute of ParameterSets: a new reference, or NULL. */
static PyObject *
of_sets(const Work *work, int name)
{
    PyObject *sets = ATTRIBUTE(work->passthrough, parameter_sets);
    return sets == NULL ? NULL : PyObject_GetAttr(sets, names[name]);
}

/* The next of the sets in a dict: 0 behind the last, and where it is none. What is found lives until the dict is changed. */
static int
next_set(PyObject *kept, Py_ssize_t *position, const uint8_t **nal, size_t *size)
{
    PyObject *value;
    if (!PyDict_Next(kept, position, NULL, &value) || !PyBytes_CheckExact(value))
        return 0;
    *nal = (const uint8_t *)PyBytes_AsString(value);
    *size = (size_t)PyBytes_Size(value);
    return 1;
}

/* ParameterSets.add, for one that is kept already, where pictures are no fields. */
static int
know_set(Work *work, int kind, const uint8_t *nal, size_t size)
{
    PyObject *kept = of_sets(work, kind == NAL_SPS ? n__sps : n__pps), *info = of_sets(work, n_info);
    PyObject *frames = info == NULL ? NULL : PyObject_GetAttr(info, names[n_frames_only]);
    int known = 0;
    const uint8_t *one;
    size_t length;
    for (Py_ssize_t position = 0; kept != NULL && !known && next_set(kept, &position, &one, &length);)
        known = length == size && !memcmp(one, nal, size);
    known = known && frames == Py_True;
    Py_XDECREF(kept);
    Py_XDECREF(info);
    Py_XDECREF(frames);
    I(sets_seen) |= kind == NAL_SPS ? 1 : 2;
    return known;
}

/* All sets in one STAP-A, where that fits, else each by itself. */
static int
put_all(Work *work, PyObject *const *kept)
{
    uint8_t joined[MOST_PAYLOAD] = {STAP_A};
    size_t total = 1, size, most = (size_t)I(max_payload);
    const uint8_t *nal;
    if (work->cut == NULL && !begin_cut(work))
        return 0;
    for (int each = 0; each < 2; each++)
        for (Py_ssize_t position = 0; next_set(kept[each], &position, &nal, &size); total += 2 + size) {
            if (total + 2 + size > most)
                continue;
            if ((nal[0] & 0x60) > (joined[0] & 0x60))
                joined[0] = (uint8_t)((nal[0] & 0x60) | STAP_A);
            write16(joined + total, (uint32_t)size);
            memcpy(joined + total + 2, nal, size);
        }
    if (total <= most)
        return emit_payload(work, NULL, 0, joined, total, 0);
    for (int each = 0; each < 2; each++)
        for (Py_ssize_t position = 0; next_set(kept[each], &position, &nal, &size);)
            if (!put_nal(work, nal, size))
                return 0;
    return 1;
}

/* NalUnits._put_parameter_sets, of a stream that has both kinds. */
static int
put_sets(Work *work)
{
    PyObject *kept[2] = {of_sets(work, n__sps), of_sets(work, n__pps)};
    int done = kept[0] != NULL && kept[1] != NULL && PyObject_Size(kept[0]) > 0 && PyObject_Size(kept[1]) > 0;
    if (done && (I(sets_seen) != 3 || I(repeats_sets))) {
        I(sets_seen) = 3;
        done = put_all(work, kept);
    }
    Py_XDECREF(kept[0]);
    Py_XDECREF(kept[1]);
    return done;
}

/* --- NAL units ----------------------------------------------------------------------------------------------------- */

/* AccessUnitEnds._begin, with another timestamp behind a picture that has ended as it should. */
static int
begin_picture(Work *work, int64_t timestamp)
{
    int64_t step = (timestamp - I(raw)) & 0xFFFFFFFF;
    if (!I(closed) || I(shift) || I(raw) < 0 || !step || I(sharing) < 1)
        return 0;
    if ((double)step < MAX_INTERVAL)
        R(interval) = (double)step / VIDEO_CLOCK_RATE / (double)I(sharing);
    I(sent_timestamp) = I(raw) = timestamp;
    I(sharing) = 1;
    I(sent) = I(key) = I(closed) = I(timed) = I(marked) = 0;
    I(sets_seen) = 0;
    return 1;
}

/* AccessUnitEnds._begin_nal and NalUnits._admit; `first`: a slice with first_mb_in_slice 0. */
static int
begin_unit(Work *work, const uint8_t *nal, size_t size, int64_t timestamp)
{
    int kind = nal[0] & 0x1F, slice = kind == NAL_SLICE || kind == NAL_IDR, first = nal[1] >= 0x80;
    if (!slice && (kind < NAL_SEI || kind > NAL_AUD))
        return 0;
    if (I(stage) == STAGE_PICTURE) {
        if (timestamp != I(stamp) ? slice && !first : I(marked) || I(closed) || !slice)
            return 0;
        if (timestamp != I(stamp) && !begin_picture(work, timestamp))
            return 0;
    }
    else if (I(stage) != STAGE_PREFIX)
        return 0;
    I(stage) = slice ? STAGE_PICTURE : STAGE_PREFIX;
    I(stamp) = timestamp;
    if (kind == NAL_SPS || kind == NAL_PPS)
        return know_set(work, kind, nal, size);
    if (kind == NAL_IDR && first) {
        I(key) = 1;
        if (!put_sets(work))
            return 0;
    }
    if (slice)
        I(sent) = 1;
    if (kind == NAL_SLICE && (nal[1] >> 4 == 0xA || nal[1] >> 2 == 0x27))
        I(b_frames)++;
    return 1;
}

/* A picture's last packet has its mark. */
static void
close_picture(Work *work)
{
    work->payloads[work->payload_count - 1].marker = 1;
    I(closed) = 1;
    I(frames)++;
    I(keyframes) += I(key);
    I(key) = 0;
}

/* AccessUnitEnds._end_nal, of a unit that has left */
static int
end_unit(Work *work, int marker)
{
    if (I(stage) == STAGE_PREFIX) {
        if (!I(warned))
            I(distrusted) = 0;
        return !marker;
    }
    I(marked) = marker;
    if (!marker)
        return 1;
    if (I(distrusted))
        return 0;
    close_picture(work);
    return 1;
}

/* --- packets ------------------------------------------------------------------------------------------------------- */

static int
has_start_code(const uint8_t *data, size_t size)
{
    for (size_t at = 2; at < size; at++)
        if (data[at] == 1 && !data[at - 1] && !data[at - 2])
            return 1;
    return 0;
}

/* H264Passthrough._begin_fragments, of a slice */
static int
begin_fragments(Work *work, const uint8_t *at, size_t size, int marker, int64_t timestamp)
{
    if (size < 3 || marker || (at[1] & (FU_START | FU_END)) != FU_START)
        return 0;
    uint8_t nal[2] = {(uint8_t)((at[0] & 0xE0) | (at[1] & 0x1F)), at[2]};
    if ((nal[0] & 0x1F) > NAL_IDR || !begin_unit(work, nal, sizeof nal, timestamp))
        return 0;
    I(header) = nal[0];
    I(in_fragment) = 1;
    I(carry_start) = 0;
    if (size <= (size_t)I(max_payload))
        return emit_payload(work, NULL, 0, at, size, 0);
    I(carry_start) = FU_START;
    return recut(work, at + 2, size - 2, 0);
}

/* NalUnits._aggregate: forwarded whole where it fits and nothing had to be put before any of its units. */
static int
aggregate(Work *work, const uint8_t *payload, size_t size, int marker, int64_t timestamp)
{
    int first = work->payload_count, whole = size <= (size_t)I(max_payload);
    size_t used = work->cut_used, at = 1;
    while (at < size) {
        if (size - at < 2)
            return 0;
        size_t unit = read16(payload + at);
        const uint8_t *nal = payload + at + 2;
        if (unit < 2 || unit > size - at - 2 || has_start_code(nal, unit))
            return 0;
        int before = work->payload_count;
        if (!begin_unit(work, nal, unit, timestamp))
            return 0;
        whole = whole && work->payload_count == before;
        if (!put_nal(work, nal, unit))
            return 0;
        at += 2 + unit;
    }
    if (whole) {
        work->payload_count = first;
        work->cut_used = used;
        if (!emit_payload(work, NULL, 0, payload, size, 0))
            return 0;
    }
    return end_unit(work, marker);
}

/* H264Passthrough.receive_payload, where no NAL unit is going on */
static int
take_payload(Work *work, const uint8_t *at, size_t size, int marker, int64_t timestamp)
{
    if (size < 2 || I(in_fragment) || I(starts_late) || I(wants_keyframe) || I(mistrusted) || I(omits) || I(fields) ||
        work->has_carry)
        return 0;
    int kind = at[0] & 0x1F;
    if (kind == FU_A)
        return begin_fragments(work, at, size, marker, timestamp);
    if (kind == STAP_A)
        return aggregate(work, at, size, marker, timestamp);
    if (kind > NAL_IDR && has_start_code(at, size))
        return 0;
    return begin_unit(work, at, size, timestamp) && put_nal(work, at, size) && end_unit(work, marker);
}

/* H264Passthrough._middle */
static int
go_on(Work *work, const uint8_t *at, size_t size, int marker)
{
    if (size < 3 || (at[0] & 0x1F) != FU_A || at[1] >= FU_START)
        return 0;
    int ends = (at[1] & FU_END) != 0;
    if (ends ? I(mistrusted) || I(omits) || I(distrusted) : marker)
        return 0;
    if (work->has_carry) {
        if (!recut(work, at + 2, size - 2, ends))
            return 0;
    }
    else if (size > (size_t)I(max_payload) || !emit_payload(work, NULL, 0, at, size, 0))
        return 0;
    if (ends) { /* _end_fragments */
        I(in_fragment) = 0;
        I(marked) = marker;
        if (marker)
            close_picture(work);
    }
    return 1;
}

/* H264Passthrough.receive_run, for each run */
int
pass_pictures(Work *work)
{
    for (int number = 0; number < work->run_count; number++) {
        Run *run = &work->runs[number];
        run->out_first = work->payload_count;
        for (int index = run->first; index < run->end; index++) {
            const uint8_t *packet = work->data + work->packets[index].offset, *at = packet + RTP_HEADER;
            size_t size = work->packets[index].size - RTP_HEADER;
            int marker = packet[1] >> 7, goes_on = I(in_fragment) && run->timestamp == I(stamp);
            if (!(goes_on ? go_on(work, at, size, marker) : take_payload(work, at, size, marker, run->timestamp)))
                return 0;
        }
        run->out_end = work->payload_count;
        run->sent_timestamp = I(sent_timestamp);
        for (int index = run->out_first; index < run->out_end; index++)
            run->bytes += work->payloads[index].size;
    }
    return 1;
}
