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

PyObject *
listen_in(PyObject *sink, PyObject *session, PyObject *data, PyObject *now)
{
    PyObject *ear = is_state(sink, PIPELINE) ? ATTRIBUTE(sink, ear) : NULL;
    if (ear == NULL || !is_wake_of(ear, session))
        return PyLong_FromLong(NO_VIDEO);
    PyObject *arguments[] = {data, now};
    Py_INCREF(ear); /* whatever becomes of its place */
    PyObject *heard = wake_hear(ear, arguments, 2);
    Py_DECREF(ear);
    if (heard == NULL || (PyLong_Check(heard) && PyLong_AsLong(heard) == DONE))
        return heard;
    if (!PyTuple_CheckExact(heard)) {
        Py_DECREF(heard); /* which has done nothing */
        return PyLong_FromLong(NO_VIDEO);
    }
    PyObject *sent = PyObject_CallMethodObjArgs(sink, names[n__heard], PyTuple_GetItem(heard, 0),
                                                PyTuple_GetItem(heard, 1), now, NULL);
    Py_DECREF(heard);
    Py_XDECREF(sent);
    return sent == NULL ? NULL : PyLong_FromLong(DONE);
}
