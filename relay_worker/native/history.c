/* What is kept of the packets of a wake, in case they have to be sent again: publish/history.py. */

#include "wake.h"

#include <stddef.h>
#include <structmember.h>

/* A `SentRun` whose payloads are parts of something, and no objects. */
typedef struct {
    PyObject_VAR_HEAD
    PyObject *data; /* the bytes, or the block, that the payloads are parts of */
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
    const char *data = (const char *)material_data(self->data);
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

/* Of so many payloads, which are still to be filled in. */
static Kept *
kept_new(Py_ssize_t count, const Sent *sent, long long size)
{
    allocfunc allocate = (allocfunc)PyType_GetSlot(kept_type, Py_tp_alloc);
    Kept *self = (Kept *)allocate(kept_type, count); /* all zeros */
    if (self == NULL)
        return NULL;
    self->sent = *sent;
    self->size = size;
    return self;
}

/* What a `SentRun` says but for its packets, integers modulo 2^32; -1 with an exception. */
static int
read_sent(PyObject *run, Sent *sent)
{
    const int name[] = {n_sequence, n_timestamp, n_step, n_transport_sequence};
    uint32_t *const number[] = {&sent->sequence, &sent->timestamp, &sent->step, &sent->transport_sequence};
    PyObject *value = PyObject_GetAttr(run, names[n_sent]);
    if (value != NULL)
        sent->at = PyFloat_AsDouble(value);
    for (size_t index = 0; index < sizeof name / sizeof *name && !PyErr_Occurred(); index++) {
        Py_XDECREF(value);
        value = PyObject_GetAttr(run, names[name[index]]);
        if (value != NULL)
            *number[index] = (uint32_t)PyLong_AsUnsignedLongMask(value);
    }
    Py_XDECREF(value);
    return PyErr_Occurred() == NULL ? 0 : -1;
}

/* The payloads of a list that is plain: how many, and their bytes; -1 of any other. */
static Py_ssize_t
count_of(PyObject *payloads, size_t *size)
{
    PyObject *payload;
    int marker;
    Py_ssize_t index = 0;
    if (!PyList_CheckExact(payloads))
        return -1;
    for (*size = 0; *size <= INT32_MAX && payload_at(payloads, index, &payload, &marker); index++)
        *size += (size_t)PyBytes_Size(payload);
    return index == PyList_Size(payloads) && *size <= INT32_MAX ? index : -1;
}

/* kept(run) -> the same run with its payloads out of the heap; or itself, where they are not plain */
PyObject *
history_kept(PyObject *Py_UNUSED(module), PyObject *run)
{
    Sent sent;
    PyObject *payloads;
    if (read_sent(run, &sent) || (payloads = PyObject_GetAttr(run, names[n_packets])) == NULL)
        return NULL;
    size_t size;
    Py_ssize_t count = count_of(payloads, &size);
    Kept *kept = count < 0 ? NULL : kept_new(count, &sent, (long long)size);
    if (kept != NULL && (kept->data = stow_payloads(payloads, size, kept->payloads)) == NULL)
        Py_CLEAR(kept);
    Py_DECREF(payloads);
    return count < 0 ? Py_NewRef(run) : (PyObject *)kept;
}

/* Forget what is older than the history reaches; -1 with an exception. */
static int
forget(Output *output, PyObject *runs, double now)
{
    PyObject *history = output->parts[HISTORY];
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
            PyObject *left = call_again(&output->methods[POPLEFT], runs, n_popleft, NULL);
            failed = left == NULL;
            Py_XDECREF(left);
            slot_of(history, f_kept_bytes)->i -= size;
        }
        else
            failed = call(history, n__evict, NULL, NULL);
        if (failed)
            return -1;
    }
}

int
keep_run(const Work *work, const Run *run, Output *output, PyObject *material, const Sent *sent)
{
    PyObject *history = output->parts[HISTORY], *runs = ATTRIBUTE(history, kept_runs);
    Py_ssize_t count = run->out_end - run->out_first;
    Kept *kept = runs == NULL ? NULL : kept_new(count, sent, run->bytes);
    if (kept == NULL) {
        if (!PyErr_Occurred())
            PyErr_SetString(PyExc_AttributeError, "a history without runs");
        return -1;
    }
    kept->data = Py_NewRef(material);
    memcpy(kept->payloads, work->payloads + run->out_first, (size_t)count * sizeof(Piece));
    Py_INCREF(runs); /* whatever the Python does meanwhile */
    PyObject *done = call_again(&output->methods[APPEND], runs, n_append, (PyObject *)kept);
    int failed = done == NULL;
    Py_XDECREF(done);
    Py_DECREF((PyObject *)kept);
    if (!failed) {
        slot_of(history, f_kept_bytes)->i += run->bytes;
        failed = forget(output, runs, sent->at);
    }
    Py_DECREF(runs);
    if (!failed && slot_of(history, f_kept_bytes)->i > slot_of(history, f_most_kept)->i)
        failed = call(history, n__shrink, NULL, NULL);
    return failed ? -1 : 0;
}
