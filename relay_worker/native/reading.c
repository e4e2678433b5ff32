/* What one wake of a connection reads: from the socket by way of TLS to `Wake.take`, with no Python between them. All that is
 * not taken whole, with nothing due behind it, is handed to the Python, which goes on from there.
 *
 * A server that writes packet by packet, and any network, brings a picture in parts, and a wake for each costs several
 * times what its bytes do. So where a wake ends within a picture its rest is waited for, for less than a viewer could notice.
 */

#include "reader.h"

#include <errno.h>
#include <sys/socket.h>
#include <time.h>

enum {
    PATIENCE = 500000, /* nanoseconds for the rest of a picture */
    MOST_WAITS = 3, /* in one wake, while each brings something */
    MOST_VAIN = 4, /* waits in a row for nothing, behind which */
    RARELY = 64, /* one wake in so many waits */
};

/* Give what has come to the sink's `Wake`, where there is one and it is made of this session. */
static PyObject *
deliver(Reader *self, PyObject *data)
{
    self->wakes++;
    PyObject *now = PyObject_CallNoArgs(self->parts[NOW_CALL]);
    PyObject *sink = self->parts[SINK], *wake = NULL;
    if (now != NULL && is_state(sink, PIPELINE))
        wake = Py_XNewRef(ATTRIBUTE(sink, wake));
    if (now != NULL && wake == NULL)
        wake = PyObject_GetAttr(sink, names[n_wake]);
    if (wake == NULL) {
        Py_XDECREF(now);
        return NULL;
    }
    PyObject *done = Py_None, *result;
    if (is_wake_of(wake, self->parts[OF_SESSION])) {
        PyObject *arguments[] = {data, now};
        done = wake_take(wake, arguments, 2);
        if (done != NULL && PyLong_AsLong(done) == NO_VIDEO) {
            Py_DECREF(done);
            done = listen_in(sink, self->parts[OF_SESSION], data, now);
        }
    }
    Py_DECREF(wake);
    int due = 1;
    if (done == NULL)
        result = hand_over(self->parts[TAKE], "(OOON)", data, now, Py_None, caught());
    else {
        if (done != Py_None && PyLong_AsLong(done) == DONE)
            due = is_due(self->parts[SOURCE], now);
        if (due < 0)
            result = NULL;
        else
            result = due ? hand_over(self->parts[TAKE], "(OOOO)", data, now, done, Py_None) : Py_NewRef(Py_None);
        if (done != Py_None)
            Py_DECREF(done);
    }
    Py_DECREF(now);
    return result;
}

/* Receive, and put what has come behind `*data`, which may be NULL: 1 where something has, 0 where nothing has, -1 at the end,
 * of which `*number` is the errno or 0, and -2 as `decrypt` says. */
static int
receive(Reader *self, PyObject **data, int *number, PyObject **done)
{
    ssize_t size = recv(self->fd, self->buffer.buf, (size_t)self->buffer.len, MSG_DONTWAIT);
    if (size < 0 && (errno == EAGAIN || errno == EINTR))
        return 0;
    if (size <= 0) {
        *number = size < 0 ? errno : 0;
        return -1;
    }
    if (self->parts[READ] != Py_None)
        return decrypt(self, size, data, done) ? 1 : -2;
    PyObject *bytes = PyBytes_FromStringAndSize(self->buffer.buf, size);
    if (*data == NULL)
        *data = bytes;
    else if (bytes != NULL)
        PyBytes_ConcatAndDel(data, bytes);
    if (bytes == NULL)
        Py_CLEAR(*data);
    return *data == NULL ? -2 : 1;
}

/* Whether frames (RFC 2326, 10.12) end within one, or the last packet of a channel has no marker bit: there are more of its
 * picture. `rest` is the beginning of a frame from before. */
static int
is_cut_short(long channel, const uint8_t *rest, size_t kept, const uint8_t *data, size_t size)
{
#define AT(index) ((index) < kept ? rest[index] : data[(index) - kept])
    size_t at = 0, all = kept + size;
    int marked = 1;
    while (all - at >= 4 && AT(at) == DOLLAR) {
        size_t packet = (size_t)AT(at + 2) << 8 | AT(at + 3);
        if (packet > all - at - 4)
            return 1;
        if (AT(at + 1) == channel && packet > 1)
            marked = AT(at + 5) > 127;
        at += 4 + packet;
    }
    return at < all ? AT(at) == DOLLAR : !marked;
#undef AT
}

/* Whether what has come ends within a picture that compiled code would take. */
static int
lacks_rest(Reader *self, PyObject *data)
{
    PyObject *sink = self->parts[SINK], *wake = is_state(sink, PIPELINE) ? ATTRIBUTE(sink, wake) : NULL;
    if (wake == NULL || !is_wake_of(wake, self->parts[OF_SESSION]) || ((Wake *)wake)->parts[TRACK] == Py_None)
        return 0;
    PyObject *rest = ATTRIBUTE(((Wake *)wake)->parts[PARSER], rest);
    if (rest == NULL || !PyBytes_CheckExact(rest))
        return 0;
    if (self->in_record || data == NULL)
        return self->in_record;
    return is_cut_short(((Wake *)wake)->channel, (const uint8_t *)PyBytes_AsString(rest), (size_t)PyBytes_Size(rest),
                        (const uint8_t *)PyBytes_AsString(data), (size_t)PyBytes_Size(data));
}

/* Receive what comes while it is waited for; as `receive`. A camera has a process of its own, so that nobody waits but those who
 * watch it, for less than they could notice. */
static int
receive_rest(Reader *self, PyObject **data, int *number, PyObject **done)
{
    int came = 1;
    for (int waits = 0; came > 0 && waits < MOST_WAITS && lacks_rest(self, *data); waits++) {
        if (self->vain >= MOST_VAIN && self->wakes % RARELY)
            break;
        const struct timespec wait = {0, PATIENCE};
        PyThreadState *state = PyEval_SaveThread();
        nanosleep(&wait, NULL);
        PyEval_RestoreThread(state);
        if (self->fd < 0) /* closed by another thread */
            break;
        came = receive(self, data, number, done);
        self->vain = came ? 0 : self->vain + (self->vain < MOST_VAIN);
    }
    return came;
}

/* read(): what is called when the socket can be read. */
static PyObject *
reader_read(PyObject *object, PyObject *Py_UNUSED(nothing))
{
    Reader *self = (Reader *)object;
    if (self->fd < 0)
        return Py_NewRef(Py_None);
    PyObject *data = NULL, *done = NULL;
    int number = 0, came = receive(self, &data, &number, &done);
    if (came > 0)
        came = receive_rest(self, &data, &number, &done);
    if (came < -1)
        return done;
    done = data == NULL ? Py_NewRef(Py_None) : deliver(self, data);
    Py_XDECREF(data);
    if (came == -1 && done != NULL && self->fd >= 0) {
        Py_DECREF(done);
        done = hand_over(self->parts[ENDED], "(i)", number);
    }
    return done;
}

/* wakes() -> how many have brought something */
static PyObject *
reader_wakes(PyObject *object, PyObject *Py_UNUSED(nothing))
{
    return PyLong_FromSsize_t(((Reader *)object)->wakes);
}

/* close(): read no more; the descriptor may be another's from now on. */
static PyObject *
reader_close(PyObject *object, PyObject *Py_UNUSED(nothing))
{
    ((Reader *)object)->fd = -1;
    return Py_NewRef(Py_None);
}

static int
reader_traverse(PyObject *object, visitproc visit, void *arg)
{
    Reader *self = (Reader *)object;
    Py_VISIT(Py_TYPE(object));
    for (int index = 0; index < READER_PARTS; index++)
        Py_VISIT(self->parts[index]);
    return 0;
}

static int
reader_clear(PyObject *object)
{
    Reader *self = (Reader *)object;
    self->fd = -1; /* nothing is read any more */
    self->connection = NULL;
    if (self->buffer.obj != NULL)
        PyBuffer_Release(&self->buffer);
    for (int index = 0; index < READER_PARTS; index++)
        Py_CLEAR(self->parts[index]);
    return 0;
}

static void
reader_dealloc(PyObject *object)
{
    PyTypeObject *type = Py_TYPE(object);
    PyObject_GC_UnTrack(object);
    reader_clear(object);
    freefunc release = (freefunc)PyType_GetSlot(type, Py_tp_free);
    release(object);
    Py_DECREF(type);
}

/* Reader(fd, parts: tuple) */
static PyObject *
reader_new(PyTypeObject *type, PyObject *arguments, PyObject *keywords)
{
    int fd;
    PyObject *parts;
    if (keywords != NULL && PyDict_Size(keywords)) {
        PyErr_SetString(PyExc_TypeError, "Reader takes no keywords");
        return NULL;
    }
    if (!PyArg_ParseTuple(arguments, "iO!", &fd, &PyTuple_Type, &parts))
        return NULL;
    if (PyTuple_Size(parts) != READER_PARTS || fd < 0) {
        PyErr_SetString(PyExc_ValueError, "no such parts");
        return NULL;
    }
    allocfunc allocate = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
    Reader *self = (Reader *)allocate(type, 0); /* all zeros */
    if (self == NULL)
        return NULL;
    self->fd = fd;
    for (int index = 0; index < READER_PARTS; index++)
        self->parts[index] = Py_NewRef(PyTuple_GetItem(parts, index));
    PyObject *tls = self->parts[TLS];
    if ((tls != Py_None && (self->connection = connection_in(tls)) == NULL) ||
        PyObject_GetBuffer(self->parts[BUFFER], &self->buffer, PyBUF_WRITABLE)) {
        Py_DECREF(self);
        return NULL;
    }
    return (PyObject *)self;
}

static PyMethodDef reader_methods[] = {
    {"read", reader_read, METH_NOARGS, NULL},
    {"wakes", reader_wakes, METH_NOARGS, NULL},
    {"close", reader_close, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot reader_slots[] = {
    {Py_tp_new, reader_new},         {Py_tp_dealloc, reader_dealloc}, {Py_tp_traverse, reader_traverse},
    {Py_tp_clear, reader_clear},     {Py_tp_methods, reader_methods}, {0, NULL},
};

static PyType_Spec reader_spec = {
    .name = "relay_worker.native._runs.Reader",
    .basicsize = sizeof(Reader),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
    .slots = reader_slots,
};

int
add_readers(PyObject *module)
{
    PyObject *reader = PyType_FromModuleAndSpec(module, &reader_spec, NULL);
    int failed = reader == NULL || PyModule_AddObjectRef(module, "Reader", reader);
    Py_XDECREF(reader);
    return failed ? -1 : 0;
}
