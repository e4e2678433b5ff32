/* TLS records, decrypted by the standard library's OpenSSL: directly (`openssl.c`), or by its two memory BIOs and its read, called
 * as the Python calls them. A part of a record waits in OpenSSL for its rest; what else is not data is for the Python, which
 * goes on from there.
 */

#include "reader.h"

/* Call one of the Python's functions and let go of the arguments, of which the last may be NULL with an exception. */
PyObject *
hand_over(PyObject *function, const char *format, ...)
{
    va_list given;
    va_start(given, format);
    PyObject *arguments = Py_VaBuildValue(format, given);
    va_end(given);
    PyObject *done = arguments == NULL ? NULL : PyObject_CallObject(function, arguments);
    Py_XDECREF(arguments);
    return done;
}

/* The exception that is set, which is cleared; a new reference. */
PyObject *
caught(void)
{
    PyObject *type, *value, *trace;
    PyErr_Fetch(&type, &value, &trace);
    PyErr_NormalizeException(&type, &value, &trace);
    if (trace != NULL && value != NULL)
        PyException_SetTraceback(value, trace);
    Py_XDECREF(type);
    Py_XDECREF(trace);
    return value;
}

/* Whether a memory BIO holds anything: -1 with an exception. */
static int
is_pending(PyObject *bio)
{
    PyObject *pending = PyObject_GetAttr(bio, names[n_pending]);
    int is = pending == NULL ? -1 : PyObject_IsTrue(pending);
    Py_XDECREF(pending);
    return is;
}

/* One record; NULL with an exception, and at the end, which `*ended` says. */
static PyObject *
read_record(Reader *self, int *ended)
{
    PyObject *record = PyObject_CallFunctionObjArgs(self->parts[READ], self->parts[RECORD], NULL);
    *ended = record != NULL && (!PyBytes_CheckExact(record) || !PyBytes_Size(record));
    if (*ended)
        Py_CLEAR(record);
    return record;
}

/* Have the Python go on behind the records so far (NULL, or a reference that is taken over), where it has to send something,
 * where no more was to be read, or at the end. What it says; NULL with an exception, also with any other. */
static PyObject *
go_on(Reader *self, PyObject *data, int ended)
{
    int refused = PyErr_Occurred() != NULL && PyErr_ExceptionMatches(self->parts[REFUSAL]);
    PyObject *function = self->parts[GO_ON], *done = NULL;
    if (refused)
        done = hand_over(function, "(NN)", data != NULL ? Py_NewRef(data) : PyBytes_FromString(""), caught());
    else if (!PyErr_Occurred() && data != NULL)
        done = hand_over(function, "(OO)", data, Py_None);
    if (ended && !PyErr_Occurred()) {
        Py_XDECREF(done);
        done = hand_over(function, "(yO)", "", Py_None);
    }
    Py_XDECREF(data);
    return done;
}

/* Whether a read has asked for the rest of a record, and OpenSSL has nothing to send: then its exception is cleared. */
static int
wants_more(Reader *self)
{
    if (!PyErr_Occurred() || !PyErr_ExceptionMatches(self->parts[WANTING]))
        return 0;
    PyObject *type, *value, *trace;
    PyErr_Fetch(&type, &value, &trace);
    int pending = is_pending(self->parts[OUTGOING]);
    if (pending) { /* for the Python; where asking has failed, too */
        PyErr_Restore(type, value, trace);
        return 0;
    }
    Py_XDECREF(type);
    Py_XDECREF(value);
    Py_XDECREF(trace);
    return 1;
}

/* Write `size` bytes of the buffer to the memory BIO; 0 with an exception. */
static int
write_records(Reader *self, Py_ssize_t size)
{
    PyObject *view = PyMemoryView_FromMemory(self->buffer.buf, size, PyBUF_READ);
    PyObject *written = view == NULL ? NULL : PyObject_CallFunctionObjArgs(self->parts[WRITE], view, NULL);
    Py_XDECREF(view);
    Py_XDECREF(written);
    return written != NULL;
}

/* Decrypt `size` bytes of the buffer, and put what they are behind `*data`, which may be NULL. 0 with an exception, or where
 * the Python was asked instead; `*done` is what that said, and `*data` is gone. */
int
decrypt(Reader *self, Py_ssize_t size, PyObject **data, PyObject **done)
{
    self->in_record = 0;
    PyObject *record;
    int pending = 1, ended = 0, result = 0;
    if (self->connection != NULL && (result = decrypt_directly(self, size, data, &pending)) > 0)
        return 1;
    if (result < 0 || (self->connection == NULL && !write_records(self, size))) {
        Py_CLEAR(*data);
        return 0;
    }
    while (pending > 0 && (record = read_record(self, &ended)) != NULL) {
        if (*data == NULL)
            *data = record;
        else
            PyBytes_ConcatAndDel(data, record); /* NULL with an exception */
        pending = *data == NULL ? -1 : is_pending(self->parts[INCOMING]);
    }
    if (pending > 0 && !ended && wants_more(self))
        return self->in_record = 1;
    if (!pending && !is_pending(self->parts[OUTGOING]))
        return 1;
    *done = go_on(self, *data, ended);
    *data = NULL;
    return 0;
}
