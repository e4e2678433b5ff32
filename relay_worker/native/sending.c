/* What the Python has made, or its pacer held, on its way out: the packets of one run, to all outputs, with one call. */

#include "wake.h"

/* The payloads, put together into one object, where history keeps them if it does; NULL where they are none that would be
 * sent as they are. */
static PyObject *
gather(Work *work, PyObject *payloads, Run *run, int kept)
{
    PyObject *payload;
    int marker, count = 0;
    if (!PyList_CheckExact(payloads))
        return NULL;
    while (count < MAX_PAYLOADS && payload_at(payloads, count, &payload, &marker)) {
        Py_ssize_t size = PyBytes_Size(payload);
        if (size > MOST_PAYLOAD)
            return NULL;
        work->payloads[count++] = (Piece){(uint32_t)run->bytes, (uint32_t)size, marker};
        run->bytes += size;
    }
    run->out_end = work->payload_count = count;
    if (!count || count != PyList_Size(payloads))
        return NULL;
    if (kept)
        return stow_payloads(payloads, (size_t)run->bytes, work->payloads);
    PyObject *material = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)run->bytes);
    for (int index = 0; material != NULL && index < count; index++)
        if (payload_at(payloads, index, &payload, &marker))
            memcpy(PyBytes_AsString(material) + work->payloads[index].offset, PyBytes_AsString(payload),
                   work->payloads[index].size);
    return material;
}

/* Whether an output would send it all now, as far as it is numbers; changes only those that are worked out. */
typedef int (*Ask)(const Run *run, Output *output, double now);

/* Pacer.take_audio, where it lets them through. */
static int
ask_for_sound(const Run *run, Output *output, double now)
{
    if (!begin_output(output) || !is_empty(ATTRIBUTE(output->parts[PACER], audio)) || !is_even(output, run->media, now))
        return 0;
    count_run(output, run, now);
    return 1;
}

/* MediaSender.send, behind the pacer. */
static int
ask_for_any(const Run *run, Output *output, double now)
{
    if (!begin_output(output) || (OI(tails_twice) && output->parts[HISTORY] != Py_None))
        return 0;
    count_run(output, run, now);
    return 1;
}

/* To all outputs, or to none: 1, 0, or -1 with an exception. */
static int
send_material(Wake *self, const Work *work, const Run *run, PyObject *material, PyObject *now_object, double now, Ask ask)
{
    int plain = 1, failed = 0;
    for (Py_ssize_t index = 0; plain && index < self->outputs; index++)
        plain = ask(run, &self->output[index], now);
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
    int sent = send_material((Wake *)object, work, run, material, now, PyFloat_AsDouble(now), ask_for_sound);
    if (!sent)
        PyErr_Clear();
    return sent;
}

/* name(payloads, media time, step, now) */
static PyObject *
send_with(PyObject *object, PyObject *const *arguments, Py_ssize_t count, const char *name, Ask ask)
{
    Wake *self = (Wake *)object;
    if (wrong_arguments(name, count, 4))
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
    PyObject *material = gather(&work, arguments[0], &run, is_kept(self));
    int sent = material == NULL ? 0 : send_material(self, &work, &run, material, arguments[3], now, ask);
    Py_XDECREF(material);
    if (sent < 0)
        return NULL;
    PyErr_Clear();
    return PyLong_FromLong(sent);
}

PyObject *
wake_send(PyObject *object, PyObject *const *arguments, Py_ssize_t count)
{
    return send_with(object, arguments, count, "send", ask_for_sound);
}

PyObject *
wake_release(PyObject *object, PyObject *const *arguments, Py_ssize_t count)
{
    return send_with(object, arguments, count, "release", ask_for_any);
}
