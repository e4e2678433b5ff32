/* The way out of a plain wake: what the pacer lets through, packets, and what is remembered of them. */

#include "wake.h"

/* publish/pacer.py */
static const double BURST_BYTES = 32 * (1200 + 28), LIMITED_BURST_BYTES = 16 * (1200 + 28), PACKET_OVERHEAD = 28;

/* What MediaSender.send counts of a run */
void
count_run(Output *output, const Run *run, double now)
{
    int count = run->out_end - run->out_first;
    if (output->number_id)
        OI(transport_sequence) = (OI(transport_sequence) + count) & 0xFFFF;
    OI(sequence) = (OI(sequence) + count) & 0xFFFF;
    OI(sent_packets) += count;
    OI(sent_bytes) += run->bytes;
    OR(last_sent) = OR(stream_last_sent) = now;
    if (isnan(OR(stream_owed)))
        OR(stream_owed) = now;
    if (isnan(OR(owed)))
        OR(owed) = now;
}

/* Pacer.take_video. 0 where the pacer would do anything but let it through, or where something else is due. */
static int
take(const Work *work, const Run *run, Output *output, double now)
{
    int count = run->out_end - run->out_first;
    double size = (double)run->bytes + PACKET_OVERHEAD * count;
    if (now - OR(meter_start) >= 1.0) {
        OI(meter_before) = now - OR(meter_start) < 2.0 ? OI(meter_bytes) : 0;
        OR(latest) = 8.0 * (double)OI(meter_before);
        OR(meter_start) = now;
        OI(meter_bytes) = 0;
    }
    OI(meter_bytes) += (int64_t)size;
    OI(offered_bytes) += (int64_t)size;
    if (run->media != OR(frame_media)) {
        if (!is_even(output, run->media, now))
            return 0;
        OR(frame_media) = run->media;
        OR(frame_release) = now;
    }
    double rate = OR(floor_bitrate);
    if (OR(ceiling) < rate) /* never where there is none */
        rate = OR(ceiling);
    double burst = isnan(OR(ceiling)) ? BURST_BYTES : LIMITED_BURST_BYTES;
    double tokens = OR(tokens) + (now - OR(tokens_at)) * rate / 8;
    if (!(tokens < burst))
        tokens = burst;
    if (!(OR(frame_release) <= now) || !(tokens >= size))
        return 0;
    OR(tokens) = tokens - size;
    OR(tokens_at) = now;
    OR(sending) = run->media;
    count_run(output, run, now);
    return work->run_count == 1 || !(OI(keyframe_wanted) || now >= OR(next_report));
}

/* Its state; 0 where nothing can be sent by numbers alone. */
int
begin_output(Output *output)
{
    load_output(output->parts, output->now);
    output->second_is_new = 0;
    output->sequence = (uint32_t)OI(sequence);
    output->number = output->number_id ? (uint32_t)OI(transport_sequence) + 1 : 0;
    return !(OI(probing) || OI(filled) || OI(out_payload_type) < 0 || OI(out_payload_type) > 127 ||
             ATTRIBUTE(output->parts[SENDER], sender_clock) == Py_None);
}

/* All that an output would do with the runs, as far as it is numbers. */
int
work_out_output(Work *work, Output *output, double now)
{
    if (!begin_output(output) || OI(pacer_wants_keyframe) || OI(skipping) || !isnan(OR(line)) || OI(tails_twice) ||
        !is_empty(ATTRIBUTE(output->parts[PACER], pacer_held)) || !is_empty(ATTRIBUTE(output->parts[PACER], ready)))
        return 0;
    for (int number = 0; number < work->run_count; number++) {
        const Run *run = &work->runs[number];
        if (has_payloads(run) && !take(work, run, output, now))
            return 0;
    }
    return 1;
}

/* --- packets ----------------------------------------------------------------------------------------------------- */

/* UdpPath.send_prepared, or any other path by way of PacketWriter.flush. */
static int
send(Output *output, Py_ssize_t filled)
{
    PyObject *path = output->parts[PATH];
    if (!filled)
        return 0;
    PyObject *address = OI(gso) ? ATTRIBUTE(path, packed) : NULL, *sock = OI(gso) ? ATTRIBUTE(path, sock) : NULL;
    if (address == NULL || sock == NULL || !PyBytes_CheckExact(address)) {
        PyObject *count = PyLong_FromSsize_t(filled);
        int failed = count == NULL || PyObject_SetAttr(output->parts[WRITER], names[n__filled], count);
        Py_XDECREF(count);
        return failed ? -1 : call(output->parts[WRITER], n_flush, NULL, NULL);
    }
    Py_INCREF(address);
    PyObject *number = call_again(&output->methods[FILENO], sock, n_fileno, NULL);
    long fd = number == NULL ? -1 : PyLong_AsLong(number);
    Py_XDECREF(number);
    if (PyErr_Occurred()) {
        Py_DECREF(address);
        return -1;
    }
    Py_ssize_t first = 0, behind = 0;
    int calls = 0, failed = 0;
    int error = send_slots(output->slots, (int)fd, PyBytes_AsString(address), (size_t)PyBytes_Size(address), &first,
                           filled, &behind, &calls);
    Py_DECREF(address);
    if (error) {
        PyObject *where = Py_BuildValue("nnni", first, behind, filled, error);
        failed = where == NULL || call(path, n_after_refusal, output->parts[PREPARED], where);
        Py_XDECREF(where);
        OI(gso) = 0; /* whatever it is now: it is asked at the next packet */
    }
    return failed ? -1 : 0;
}

static int
measure_delay(Output *output, int count, double now)
{
    PyObject *then = PyObject_CallNoArgs(output->parts[NOW]);
    double delay = then == NULL ? -1.0 : PyFloat_AsDouble(then) - now;
    Py_XDECREF(then);
    if (PyErr_Occurred())
        return -1;
    PyObject *value = PyFloat_FromDouble(delay), *packets = PyLong_FromLong(count);
    PyObject *samples = ATTRIBUTE(output->parts[DELAY], samples);
    int failed = value == NULL || packets == NULL || samples == NULL;
    if (!failed && PyList_CheckExact(samples) && PyList_Size(samples) < SAMPLES) {
        PyObject *sample = PyTuple_Pack(2, value, packets);
        failed = sample == NULL || PyList_Append(samples, sample);
        Py_XDECREF(sample);
    }
    else if (!failed)
        failed = call(output->parts[DELAY], n_add, value, packets);
    Py_XDECREF(value);
    Py_XDECREF(packets);
    return failed ? -1 : 0;
}

/* round() of a number that is no larger than a double holds exactly: half to even */
static int64_t
rounded(double value)
{
    int64_t below = (int64_t)value - (value < 0); /* of a negative one that is whole, one too few: `part` is 1 then */
    double part = value - (double)below;
    return part > 0.5 || (part == 0.5 && (below & 1)) ? below + 1 : below;
}

/* MediaSender.send: write, encrypt and send a run's packets, and remember them. */
int
send_run(const Work *work, const Run *run, Output *output, PyObject *material, PyObject *now_object, double now)
{
    const uint8_t *data = material_data(material);
    Py_ssize_t slot = 0;
    long refused = 0;
    uint32_t first = output->sequence, first_number = output->number & 0xFFFF;
    int64_t media = rounded(run->media * (double)OI(out_clock_rate));
    Header header = {
        .payload_type = (uint32_t)OI(out_payload_type),
        .sequence = first,
        .timestamp = (uint32_t)((uint64_t)OI(timestamp_base) + (uint64_t)media),
        .ssrc = (uint32_t)OI(out_ssrc),
        .time_id = output->time_id,
        .send_time = (uint32_t)((int64_t)(now * 262144) & 0xFFFFFF),
        .number_id = output->number_id,
        .number = output->number,
    };
    uint32_t timestamp = header.timestamp, step = (uint32_t)rounded(run->step * (double)OI(out_clock_rate));
    for (int index = run->out_first; index < run->out_end;
         index++, header.sequence++, header.number++, header.timestamp += step) {
        const Piece *payload = &work->payloads[index];
        int written = write_packet(output->slots, slot, &header, payload->marker, data + payload->offset, payload->size);
        if (written <= 0) {
            refused++;
            continue;
        }
        if (output->number_id) {
            uint32_t number = header.number & 0xFFFF;
            ((double *)output->sent_at.buf)[number % SENT_KEPT] = now;
            ((uint16_t *)output->sent_size.buf)[number % SENT_KEPT] = (uint16_t)output->slots->lengths[slot];
        }
        if (++slot == output->slots->slots) {
            if (send(output, slot))
                return -1;
            slot = 0;
        }
    }
    output->sequence = header.sequence & 0xFFFF;
    output->number = output->number_id ? header.number & 0xFFFF : 0;
    if (send(output, slot))
        return -1;
    if (refused)
        slot_of(output->parts[PROTECTOR], f_failures)->i += refused;
    Sent sent = {now, first, timestamp, step, output->number_id ? first_number : 0};
    if (output->parts[HISTORY] != Py_None && keep_run(work, run, output, material, &sent))
        return -1;
    if ((OI(keyframe_wanted) || now >= OR(next_report)) &&
        call(output->parts[SENDER], n__say_what_is_due, now_object, NULL))
        return -1;
    return output->parts[DELAY] == Py_None ? 0 : measure_delay(output, run->out_end - run->out_first, now);
}

/* Numbers first, packets afterwards: whatever fails in between, no number is used for two packets. */
int
keep_output(Output *output)
{
    if (output->number_id)
        OI(newest) = OI(transport_sequence);
    store_output(output->parts, output->now);
    return output->second_is_new ? keep_second(output) : 0;
}

/* Take hold of the array `name`, whose items have `size` bytes: 0 when it is none. */
static int
hold(PyObject *array, Py_ssize_t size, Py_buffer *buffer)
{
    if (PyObject_GetBuffer(array, buffer, PyBUF_WRITABLE))
        return 0;
    if (buffer->itemsize == size && buffer->len == size * SENT_KEPT)
        return 1;
    PyBuffer_Release(buffer);
    return 0;
}

/* Whether an output can do without this part: sound has less than video, and not every path is UDP. */
static int
may_miss(int part)
{
    return part == METER || part == PACER_STATS || part == HISTORY || part == REPAIR || part == UPLINK || part == PATH ||
           part == DELAY;
}

/* `OutputParts` of the package */
int
fill_output(Output *output, PyObject *given)
{
    if (!PyTuple_Check(given) || PyTuple_Size(given) != OUTPUT_PARTS)
        return 0;
    for (int index = 0; index < OUTPUT_PARTS; index++)
        output->parts[index] = Py_NewRef(PyTuple_GetItem(given, index));
    for (int index = 0; index < OUTPUT_STATES; index++)
        if (output->parts[index] == Py_None ? !may_miss(index) : !is_state(output->parts[index], OF_OUTPUT + index))
            return 0;
    if (!is_slots(output->parts[SLOTS]) || !hold(output->parts[SENT_AT], sizeof(double), &output->sent_at) ||
        !hold(output->parts[SENT_SIZE], sizeof(uint16_t), &output->sent_size))
        return 0;
    output->slots = (Slots *)output->parts[SLOTS];
    long time_id = PyLong_AsLong(output->parts[TIME_ID]), number_id = PyLong_AsLong(output->parts[NUMBER_ID]);
    if (PyErr_Occurred() || time_id < 0 || time_id > 14 || number_id < 0 || number_id > 14)
        return 0;
    output->time_id = (uint32_t)time_id;
    output->number_id = (uint32_t)number_id;
    return output->slots->slots > 0;
}

void
clear_output(Output *output)
{
    if (output->sent_at.obj != NULL)
        PyBuffer_Release(&output->sent_at);
    if (output->sent_size.obj != NULL)
        PyBuffer_Release(&output->sent_size);
    for (int index = 0; index < OUTPUT_PARTS; index++)
        Py_CLEAR(output->parts[index]);
    for (int index = 0; index < OUTPUT_METHODS; index++) {
        output->methods[index].object = NULL;
        Py_CLEAR(output->methods[index].method);
    }
}
