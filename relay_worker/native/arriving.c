/* What a wake of a socket with datagrams brings: pictures, and sound that came alone, go to whoever takes them with no Python in
 * between, while the camera is to be told and asked nothing; all else is handed to the Python, decrypted. */

#include "datagrams.h"
#include "reader.h"

/* The order of `ArrivalCalls` in the package, and of `listen`. */
enum { CALL_NOW, CALL_ALONE, CALL_LEFT, ARRIVAL_CALLS };
enum { BY_SINK, BY_SESSION, BY_SOURCE, LISTENERS };

typedef struct {
    PyObject_HEAD
    PyObject *datagrams;
    PyObject *calls[ARRIVAL_CALLS], *listeners[LISTENERS];
} Arrivals;

/* What takes the pictures of those who listen, where the camera is to be told or asked nothing whatever comes; else NULL. */
static Wake *
resting(const Arrivals *self, PyObject *now)
{
    PyObject *sink = self->listeners[BY_SINK], *wake = is_state(sink, PIPELINE) ? ATTRIBUTE(sink, wake) : NULL;
    if (wake == NULL || !is_wake_of(wake, self->listeners[BY_SESSION]))
        return NULL;
    PyObject *passthrough = ((Wake *)wake)->parts[PASSTHROUGH];
    if (!is_state(passthrough, PASSTHROUGH) || input_value(passthrough, f_wants_keyframe)->i)
        return NULL;
    int due = is_due(self->listeners[BY_SOURCE], now);
    PyErr_Clear(); /* of what is no time */
    return due ? NULL : (Wake *)wake;
}

/* WebRtcSource._came, of a picture: DatagramFeed.take in step, without a loss. 1, 0 where nothing has happened, -1 with an
 * exception. */
static int
take_picture(Wake *wake, PyObject *sink, PyObject *session, PyObject *source, PyObject *frames, PyObject *now)
{
    if (!is_state(source, RTSP_SOURCE))
        return 0;
    PyObject *arguments[] = {frames, now}, *receiver = Py_NewRef(wake->parts[RECEIVER]);
    PyObject *taken = wake_take((PyObject *)wake, arguments, 2);
    long done = taken == NULL ? -1 : PyLong_AsLong(taken);
    int result = taken == NULL ? -1 : done == DONE || done == OTHERS_LEFT;
    Py_XDECREF(taken);
    if (result > 0) {
        slot_of(source, f_alive_at)->r = PyFloat_AsDouble(now);
        slot_of(source, f_unlooked)->i = input_value(receiver, f_highest)->i;
    }
    Py_DECREF(receiver);
    if (result > 0 && done == OTHERS_LEFT) {
        PyObject *feed = PyObject_GetAttr(session, names[n_feed]);
        result = feed == NULL || call(sink, n_take_left, feed, now) ? -1 : 1;
        Py_XDECREF(feed);
    }
    return result;
}

/* The same of sound. */
static int
take_sound(PyObject *sink, PyObject *session, PyObject *frames, PyObject *now)
{
    PyObject *heard = listen_in(sink, session, frames, now);
    int result = heard == NULL ? -1 : PyLong_AsLong(heard) == DONE;
    Py_XDECREF(heard);
    return result;
}

/* RTP packets alone, at least one. */
static PyObject *
take_frames(Arrivals *self, PyObject *frames, PyObject *now)
{
    Wake *wake = resting(self, now);
    int taken = 0;
    if (wake != NULL) {
        PyObject *held[LISTENERS + 1] = {Py_NewRef(self->listeners[BY_SINK]), Py_NewRef(self->listeners[BY_SESSION]),
                                         Py_NewRef(self->listeners[BY_SOURCE]), Py_NewRef((PyObject *)wake)};
        taken = (uint8_t)PyBytes_AsString(frames)[1] == wake->channel
                    ? take_picture(wake, held[BY_SINK], held[BY_SESSION], held[BY_SOURCE], frames, now)
                    : take_sound(held[BY_SINK], held[BY_SESSION], frames, now);
        for (int index = 0; index <= LISTENERS; index++)
            Py_DECREF(held[index]);
    }
    if (taken > 0)
        return Py_NewRef(Py_None);
    return hand_over(self->calls[CALL_ALONE], "(OON)", frames, now, taken < 0 ? caught() : Py_NewRef(Py_None));
}

/* read(): what is called when the socket can be read. */
static PyObject *
arrivals_read(PyObject *object, PyObject *Py_UNUSED(nothing))
{
    Arrivals *self = (Arrivals *)object;
    Arrival came;
    came.size = 0;
    came.refused = 0;
    came.sender_size = 0;
    ssize_t other = receive_datagrams((Datagrams *)self->datagrams, &came, 0);
    if (other < 0 && !came.size && !came.refused) /* another has read it */
        return Py_NewRef(Py_None);
    PyObject *found = arrived((Datagrams *)self->datagrams, &came, other), *result = NULL;
    PyObject *now = found == NULL ? NULL : PyObject_CallNoArgs(self->calls[CALL_NOW]);
    if (now != NULL)
        result = PyBytes_CheckExact(found) ? take_frames(self, found, now)
                                           : hand_over(self->calls[CALL_LEFT], "(OO)", found, now);
    Py_XDECREF(found);
    Py_XDECREF(now);
    return result;
}

/* listen(sink, session, source): who takes media from now on; None for nobody. */
static PyObject *
arrivals_listen(PyObject *object, PyObject *const *arguments, Py_ssize_t count)
{
    Arrivals *self = (Arrivals *)object;
    if (wrong_arguments("listen", count, LISTENERS))
        return NULL;
    for (int index = 0; index < LISTENERS; index++) {
        PyObject *before = self->listeners[index];
        self->listeners[index] = Py_NewRef(arguments[index]);
        Py_DECREF(before);
    }
    return Py_NewRef(Py_None);
}

static int
arrivals_traverse(PyObject *object, visitproc visit, void *arg)
{
    Arrivals *self = (Arrivals *)object;
    Py_VISIT(Py_TYPE(object));
    Py_VISIT(self->datagrams);
    for (int index = 0; index < ARRIVAL_CALLS; index++)
        Py_VISIT(self->calls[index]);
    for (int index = 0; index < LISTENERS; index++)
        Py_VISIT(self->listeners[index]);
    return 0;
}

/* Let go of all that may refer to this; there is always something in each place. */
static int
arrivals_clear(PyObject *object)
{
    Arrivals *self = (Arrivals *)object;
    PyObject **const places[] = {self->calls, self->listeners};
    const int counts[] = {ARRIVAL_CALLS, LISTENERS};
    for (int each = 0; each < 2; each++)
        for (int index = 0; index < counts[each]; index++) {
            PyObject *before = places[each][index];
            places[each][index] = Py_NewRef(Py_None);
            Py_XDECREF(before);
        }
    return 0;
}

static void
arrivals_dealloc(PyObject *object)
{
    PyTypeObject *type = Py_TYPE(object);
    PyObject_GC_UnTrack(object);
    Arrivals *self = (Arrivals *)object;
    Py_XDECREF(self->datagrams);
    for (int index = 0; index < ARRIVAL_CALLS; index++)
        Py_XDECREF(self->calls[index]);
    for (int index = 0; index < LISTENERS; index++)
        Py_XDECREF(self->listeners[index]);
    freefunc release = (freefunc)PyType_GetSlot(type, Py_tp_free);
    release(object);
    Py_DECREF(type);
}

/* Arrivals(datagrams, calls: tuple) */
static PyObject *
arrivals_new(PyTypeObject *type, PyObject *arguments, PyObject *keywords)
{
    PyObject *datagrams, *calls;
    if (keywords != NULL && PyDict_Size(keywords)) {
        PyErr_SetString(PyExc_TypeError, "Arrivals takes no keywords");
        return NULL;
    }
    if (!PyArg_ParseTuple(arguments, "OO!", &datagrams, &PyTuple_Type, &calls))
        return NULL;
    if (!is_datagrams(datagrams) || PyTuple_Size(calls) != ARRIVAL_CALLS) {
        PyErr_SetString(PyExc_ValueError, "no such arrivals");
        return NULL;
    }
    allocfunc allocate = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
    Arrivals *self = (Arrivals *)allocate(type, 0); /* all zeros */
    if (self == NULL)
        return NULL;
    self->datagrams = Py_NewRef(datagrams);
    for (int index = 0; index < ARRIVAL_CALLS; index++)
        self->calls[index] = Py_NewRef(PyTuple_GetItem(calls, index));
    for (int index = 0; index < LISTENERS; index++)
        self->listeners[index] = Py_NewRef(Py_None);
    return (PyObject *)self;
}

static PyMethodDef arrivals_methods[] = {
    {"read", arrivals_read, METH_NOARGS, NULL},
    {"listen", (PyCFunction)(void (*)(void))arrivals_listen, METH_FASTCALL, NULL},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot arrivals_slots[] = {
    {Py_tp_new, arrivals_new},     {Py_tp_dealloc, arrivals_dealloc}, {Py_tp_traverse, arrivals_traverse},
    {Py_tp_clear, arrivals_clear}, {Py_tp_methods, arrivals_methods}, {0, NULL},
};

static PyType_Spec arrivals_spec = {
    .name = "relay_worker.native._runs.Arrivals",
    .basicsize = sizeof(Arrivals),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
    .slots = arrivals_slots,
};

int
add_arrivals(PyObject *module)
{
    PyObject *type = PyType_FromModuleAndSpec(module, &arrivals_spec, NULL);
    int failed = type == NULL || PyModule_AddObjectRef(module, "Arrivals", type);
    Py_XDECREF(type);
    return failed ? -1 : 0;
}
