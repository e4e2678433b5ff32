/* Sound on its way out: the packets that one wake has made, to all outputs, with one call. */

#include "wake.h"

/* The payloads, put together into one object; NULL where they are none that would be sent as they are. */
static PyObject *
gather(Work *work, PyObject *payloads, Run *run)
{
    PyObject *payload;
    int marker;
    if (!PyList_CheckExact(payloads))
        return NULL;
    while (work->payload_count < MAX_PAYLOADS && payload_at(payloads, work->payload_count, &payload, &marker)) {
        Py_ssize_t size = PyBytes_Size(payload);
        if (size > MOST_PAYLOAD)
            return NULL;
        work->payloads[work->payload_count++] = (Piece){(uint32_t)run->bytes, (uint32_t)size, marker};
        run->bytes += size;
    }
    run->out_end = work->payload_count;
    if (!run->out_end || run->out_end != PyList_Size(payloads))
        return NULL;
    PyObject *material = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)run->bytes);
    for (int index = 0; material != NULL && index < run->out_end; index++)
        if (payload_at(payloads, index, &payload, &marker))
            memcpy(PyBytes_AsString(material) + work->payloads[index].offset, PyBytes_AsString(payload),
                   work->payloads[index].size);
    return material;
}

/* Pacer.take_audio, where it lets them through. */
static int
work_out_sound(const Run *run, Output *output, double now)
{
    if (!begin_output(output) || !is_empty(ATTRIBUTE(output->parts[PACER], audio)) || !is_even(output, run->media, now))
        return 0;
    count_run(output, run, now);
    return 1;
}

/* To all outputs, or to none: 1, 0, or -1 with an exception. */
static int
send_material(Wake *self, const Work *work, const Run *run, PyObject *material, PyObject *now_object, double now)
{
    int plain = 1, failed = 0;
    for (Py_ssize_t index = 0; plain && index < self->outputs; index++)
        plain = work_out_sound(run, &self->output[index], now);
    for (Py_ssize_t index = 0; plain && !failed && index < self->outputs; index++)
        failed = keep_output(&self->output[index]);
    for (Py_ssize_t index = 0; plain && !failed && index < self->outputs; index++)
        failed = send_run(work, run, &self->output[index], material, now_object, now);
    return failed ? -1 : plain;
}

int
send_sound(PyObject *object, const Work *work, const Run *run, PyObject *material, PyObject *now)
{
    if (!is_wake(object) || !is_guarded((Wake *)object))
        return 0;
    int sent = send_material((Wake *)object, work, run, material, now, PyFloat_AsDouble(now));
    if (!sent)
        PyErr_Clear();
    return sent;
}

PyObject *
wake_send(PyObject *object, PyObject *const *arguments, Py_ssize_t count)
{
    Wake *self = (Wake *)object;
    if (wrong_arguments("send", count, 4))
        return NULL;
    Work work = {0};
    Run run = {0};
    run.media = PyFloat_AsDouble(arguments[1]);
    run.step = PyFloat_AsDouble(arguments[2]);
    double now = PyFloat_AsDouble(arguments[3]);
    if (PyErr_Occurred())
        return NULL;
    if (!is_guarded(self))
        return PyLong_FromLong(-1);
    PyObject *material = gather(&work, arguments[0], &run);
    int sent = material == NULL ? 0 : send_material(self, &work, &run, material, arguments[3], now);
    Py_XDECREF(material);
    if (sent < 0)
        return NULL;
    PyErr_Clear();
    return PyLong_FromLong(sent);
}
