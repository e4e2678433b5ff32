/* What is done of a wake before the Python is asked: whether it has to be, and sound that came alone. */

#include "wake.h"

int
is_due(PyObject *source, PyObject *now)
{
    if (is_state(source, RTSP_SOURCE))
        return PyFloat_AsDouble(now) >= slot_of(source, f_report_due)->r;
    PyObject *due = PyObject_GetAttr(source, names[n__report_due]);
    double at = due == NULL ? -1.0 : PyFloat_AsDouble(due);
    Py_XDECREF(due);
    return PyErr_Occurred() ? -1 : PyFloat_AsDouble(now) >= at;
}

/* Give these bytes to what hears sound, and to the sink what that may not send: 1, 0 where nothing has happened, -1 with an
 * exception. */
static int
hear_by(PyObject *ear, PyObject *sink, PyObject *data, PyObject *now)
{
    PyObject *arguments[] = {data, now};
    Py_INCREF(ear); /* whatever becomes of its place */
    PyObject *heard = wake_hear(ear, arguments, 2), *sent = NULL;
    Py_DECREF(ear);
    if (heard == NULL)
        return -1;
    int done = PyLong_Check(heard) && PyLong_AsLong(heard) == DONE;
    if (PyTuple_CheckExact(heard)) {
        sent = PyObject_CallMethodObjArgs(sink, names[n__heard], PyTuple_GetItem(heard, 0), PyTuple_GetItem(heard, 1), now,
                                          NULL);
        done = sent == NULL ? -1 : 1;
        Py_XDECREF(sent);
    }
    Py_DECREF(heard);
    return done;
}

PyObject *
listen_in(PyObject *sink, PyObject *session, PyObject *data, PyObject *now)
{
    PyObject *ear = is_state(sink, PIPELINE) ? ATTRIBUTE(sink, ear) : NULL;
    int done = ear != NULL && is_wake_of(ear, session) ? hear_by(ear, sink, data, now) : 0;
    return done < 0 ? NULL : PyLong_FromLong(done ? DONE : NO_VIDEO);
}

int
listen_beside(const Work *work, PyObject *const *parts, PyObject *now)
{
    PyObject *pipeline = parts[PIPELINE], *ear = ATTRIBUTE(pipeline, ear);
    if (work->other_count != 1 || work->taken != work->size || ear == NULL || !is_wake_of(ear, parts[SESSION]) ||
        ((Wake *)ear)->channel != work->other_channels[0])
        return 0;
    const Piece *packet = &work->others[0]; /* behind its frame's header */
    PyObject *frame = PyBytes_FromStringAndSize((const char *)work->data + packet->offset - FRAME_HEADER,
                                                FRAME_HEADER + (Py_ssize_t)packet->size);
    int done = frame == NULL ? -1 : hear_by(ear, pipeline, frame, now);
    Py_XDECREF(frame);
    return done;
}
