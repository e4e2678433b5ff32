/* What is kept of the packets of a wake, in case they have to be sent again: publish/history.py. */

#include "wake.h"

#include <stddef.h>
#include <structmember.h>

/* A `SentRun` whose payloads are parts of what came, and were never objects. */
typedef struct {
    PyObject_VAR_HEAD
    PyObject *data; /* bytes that the payloads are parts of */
    Sent sent;
    long long size; /* of all payloads */
    Piece payloads[];
} Kept;

static PyTypeObject *kept_type;

static void
kept_dealloc(PyObject *object)
{
    PyTypeObject *type = Py_TYPE(object);
    Py_XDECREF(((Kept *)object)->data);
    freefunc release = (freefunc)PyType_GetSlot(type, Py_tp_free);
    release(object);
    Py_DECREF(type);
}

static Py_ssize_t
kept_length(PyObject *object)
{
    return Py_SIZE(object);
}

/* Payload and marker bit of one, as in any other run of payloads. */
static PyObject *
kept_item(PyObject *object, Py_ssize_t index)
{
    Kept *self = (Kept *)object;
    if (index < 0 || index >= Py_SIZE(object)) {
        PyErr_SetString(PyExc_IndexError, "no such payload");
        return NULL;
    }
    const Piece *payload = &self->payloads[index];
    const char *data = PyBytes_AsString(self->data);
    return Py_BuildValue("y#O", data + payload->offset, (Py_ssize_t)payload->size,
                         payload->marker ? Py_True : Py_False);
}

static PyObject *
kept_packets(PyObject *object, void *Py_UNUSED(closure))
{
    return Py_NewRef(object);
}

static PyMemberDef kept_members[] = {
    {"sent", T_DOUBLE, offsetof(Kept, sent.at), READONLY, NULL},
    {"sequence", T_UINT, offsetof(Kept, sent.sequence), READONLY, NULL},
    {"timestamp", T_UINT, offsetof(Kept, sent.timestamp), READONLY, NULL},
    {"step", T_UINT, offsetof(Kept, sent.step), READONLY, NULL},
    {"size", T_LONGLONG, offsetof(Kept, size), READONLY, NULL},
    {"transport_sequence", T_UINT, offsetof(Kept, sent.transport_sequence), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyGetSetDef kept_getters[] = {
    {"packets", kept_packets, NULL, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot kept_slots[] = {
    {Py_tp_dealloc, kept_dealloc}, {Py_sq_length, kept_length},   {Py_sq_item, kept_item},
    {Py_tp_members, kept_members}, {Py_tp_getset, kept_getters}, {0, NULL},
};

static PyType_Spec kept_spec = {
    .name = "relay_worker.native._runs.Kept",
    .basicsize = sizeof(Kept),
    .itemsize = sizeof(Piece),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = kept_slots,
};

int
add_kept(PyObject *Py_UNUSED(module))
{
    kept_type = (PyTypeObject *)PyType_FromSpec(&kept_spec); /* kept alive, as is the module */
    return kept_type == NULL ? -1 : 0;
}

static PyObject *
kept_new(const Work *work, const Run *run, PyObject *material, const Sent *sent)
{
    Py_ssize_t count = run->out_end - run->out_first;
    allocfunc allocate = (allocfunc)PyType_GetSlot(kept_type, Py_tp_alloc);
    Kept *self = (Kept *)allocate(kept_type, count);
    if (self == NULL)
        return NULL;
    self->data = Py_NewRef(material);
    self->sent = *sent;
    self->size = run->bytes;
    memcpy(self->payloads, work->payloads + run->out_first, (size_t)count * sizeof(Piece));
    return (PyObject *)self;
}

/* Forget what is older than the history reaches; -1 with an exception. */
static int
forget(PyObject *history, PyObject *runs, double now)
{
    double expired = now - slot_of(history, f_kept_seconds)->r;
    for (;;) {
        PyObject *oldest = PySequence_GetItem(runs, 0);
        if (oldest == NULL)
            return -1;
        int is_own = Py_IS_TYPE(oldest, kept_type), failed;
        double sent = is_own ? ((Kept *)oldest)->sent.at : 0.0;
        int64_t size = is_own ? ((Kept *)oldest)->size : 0;
        if (!is_own) {
            PyObject *at = PyObject_GetAttr(oldest, names[n_sent]);
            sent = at == NULL ? 0.0 : PyFloat_AsDouble(at);
            Py_XDECREF(at);
        }
        Py_DECREF(oldest);
        if (PyErr_Occurred())
            return -1;
        if (!(sent < expired))
            return 0;
        if (is_own && is_empty(ATTRIBUTE(history, resent))) {
            failed = call(runs, n_popleft, NULL, NULL);
            slot_of(history, f_kept_bytes)->i -= size;
        }
        else
            failed = call(history, n__evict, NULL, NULL);
        if (failed)
            return -1;
    }
}

int
keep_run(const Work *work, const Run *run, PyObject *history, PyObject *material, const Sent *sent)
{
    PyObject *runs = ATTRIBUTE(history, kept_runs), *kept = runs == NULL ? NULL : kept_new(work, run, material, sent);
    if (kept == NULL) {
        if (!PyErr_Occurred())
            PyErr_SetString(PyExc_AttributeError, "a history without runs");
        return -1;
    }
    Py_INCREF(runs); /* whatever the Python does meanwhile */
    int failed = call(runs, n_append, kept, NULL);
    Py_DECREF(kept);
    if (!failed) {
        slot_of(history, f_kept_bytes)->i += run->bytes;
        failed = forget(history, runs, sent->at);
    }
    Py_DECREF(runs);
    if (!failed && slot_of(history, f_kept_bytes)->i > slot_of(history, f_most_kept)->i)
        failed = call(history, n__shrink, NULL, NULL);
    return failed ? -1 : 0;
}
