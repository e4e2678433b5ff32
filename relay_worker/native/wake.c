/* One plain wake of one camera, in one call: from decrypted bytes to `sendmsg`.
 *
 * The Python is the specification, and keeps the state: the fields named in the tables below are read from its objects
 * into `Value`s, all is worked out on these, and only when the whole wake has turned out to be plain are the changed ones
 * written back and packets sent. Otherwise nothing has changed, and the Python takes the wake. So no object ever shows
 * anything but the truth, and either of the two may take any wake.
 *
 * Plain is: whole RTP packets of the video without padding, extension, CSRC and loss, with pictures that are plain, too
 * (pictures.c); an even source, whose packets every output's pacer lets through; no capture, no snapshot. Packets of other
 * channels are passed to the parser's lists.
 */

#include "wake.h"

/* The same for all bytes that are there: 0 when they are not plain, 1 and 2, 3 when there is no video in them; NULL with an
 * exception, behind which nothing of this wake is sent any more. */
static PyObject *
take_bytes(Wake *self, PyObject *const *parts, PyObject *lists, PyObject *buffer, PyObject *now_object)
{
    double now = PyFloat_AsDouble(now_object);
    Work work = {.channel = self->channel, .control = self->control};
    work.data = (const uint8_t *)PyBytes_AsString(buffer);
    work.size = (size_t)PyBytes_Size(buffer);
    int plain = work.size <= INT32_MAX && split(&work, lists);
    if (plain && !work.packet_count && work.other_count)
        return PyLong_FromLong(3);
    plain = plain && work_out_input(&work, parts, now);
    for (Py_ssize_t index = 0; plain && index < self->outputs; index++)
        plain = work_out_output(&work, &self->output[index], now);
    int failed = 0;
    if (plain) {
        PyObject *material = work.cut != NULL ? work.cut : buffer;
        failed = keep_input(&work, parts, lists, self->kind, now_object);
        for (Py_ssize_t index = 0; !failed && index < self->outputs; index++)
            failed = keep_output(&self->output[index]);
        for (int number = 0; !failed && number < work.run_count; number++)
            for (Py_ssize_t index = 0; !failed && has_payloads(&work.runs[number]) && index < self->outputs; index++)
                failed = send_run(&work, &work.runs[number], &self->output[index], material, now_object, now);
    }
    Py_XDECREF(work.cut);
    if (failed)
        return NULL;
    PyErr_Clear();
    return PyLong_FromLong(!plain ? 0 : work.other_count ? 2 : 1);
}

typedef PyObject *(*Taker)(Wake *self, PyObject *const *parts, PyObject *lists, PyObject *buffer, PyObject *now);

/* name(data: bytes, now: float) -> 0 when the wake is not plain (and nothing has happened), -1 when what this was made of
 * has changed (likewise), else what `taker` says. */
static PyObject *
take_with(PyObject *object, PyObject *const *arguments, Py_ssize_t count, const char *name, Taker taker)
{
    Wake *self = (Wake *)object;
    if (wrong_arguments(name, count, 2))
        return NULL;
    if (!PyBytes_CheckExact(arguments[0]) || !PyFloat_CheckExact(arguments[1])) {
        PyErr_Format(PyExc_TypeError, "%s takes bytes and a float", name);
        return NULL;
    }
    if (self->guards == NULL || !is_guarded(self->guards)) {
        PyErr_Clear();
        return PyLong_FromLong(-1);
    }
    PyObject *parts[INPUT_PARTS], *found[3] = {0}; /* clock, lists and pending bytes */
    memcpy(parts, self->parts, sizeof self->parts);
    found[0] = parts[CLOCK] = PyObject_GetAttr(parts[TRACK], names[n_clock]);
    found[1] = PyObject_GetAttr(parts[PARSER], names[n_packets]);
    found[2] = PyObject_GetAttr(parts[PARSER], names[n__pending]);
    PyObject *buffer = NULL, *done;
    if (found[0] != NULL && found[1] != NULL && PyDict_CheckExact(found[1]) && found[2] != NULL &&
        PyBytes_CheckExact(found[2]))
        buffer = PyBytes_Size(found[2]) ? PySequence_Concat(found[2], arguments[0]) : Py_NewRef(arguments[0]);
    if (buffer != NULL)
        done = taker(self, parts, found[1], buffer, arguments[1]);
    else {
        PyErr_Clear();
        done = PyLong_FromLong(0);
    }
    Py_XDECREF(buffer);
    for (int index = 0; index < 3; index++)
        Py_XDECREF(found[index]);
    return done;
}

/* 1 when it is done, 2 when packets of other channels are in the parser's lists besides, 3 when only such have come; then
 * nothing has happened. */
PyObject *
wake_take(PyObject *object, PyObject *const *arguments, Py_ssize_t count)
{
    return take_with(object, arguments, count, "take", take_bytes);
}

/* (access unit, its media time) of sound that came alone. */
static PyObject *
wake_hear(PyObject *object, PyObject *const *arguments, Py_ssize_t count)
{
    return take_with(object, arguments, count, "hear", hear_bytes);
}

static int
are_guards(PyObject *guards)
{
    for (Py_ssize_t index = 0; index < PyTuple_Size(guards); index++) {
        PyObject *guard = PyTuple_GetItem(guards, index);
        if (!PyTuple_Check(guard) || PyTuple_Size(guard) != 3 || !PyUnicode_Check(PyTuple_GetItem(guard, 1)))
            return 0;
    }
    return 1;
}

/* Wake(guards: tuple, input parts: tuple, outputs: tuple, kind, channel, RTCP channel) */
static PyObject *
wake_new(PyTypeObject *type, PyObject *arguments, PyObject *keywords)
{
    PyObject *guards, *input, *outputs, *kind;
    int channel, control;
    if (keywords != NULL && PyDict_Size(keywords)) {
        PyErr_SetString(PyExc_TypeError, "Wake takes no keywords");
        return NULL;
    }
    if (!PyArg_ParseTuple(arguments, "O!O!O!Oii", &PyTuple_Type, &guards, &PyTuple_Type, &input, &PyTuple_Type, &outputs,
                          &kind, &channel, &control))
        return NULL;
    Py_ssize_t count = PyTuple_Size(outputs);
    if (PyTuple_Size(input) != INPUT_GIVEN || count > MAX_OUTPUTS ||
        (count < 1 && PyTuple_GetItem(input, PASSTHROUGH) != Py_None) || !are_guards(guards)) {
        PyErr_SetString(PyExc_ValueError, "no such parts");
        return NULL;
    }
    allocfunc allocate = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
    Wake *self = (Wake *)allocate(type, 0); /* all zeros */
    if (self == NULL)
        return NULL;
    self->guards = Py_NewRef(guards);
    self->kind = Py_NewRef(kind);
    self->channel = channel;
    self->control = control;
    for (int index = 0; index < INPUT_GIVEN; index++)
        self->parts[index] = Py_NewRef(PyTuple_GetItem(input, index));
    self->output = PyMem_Calloc((size_t)count + 1, sizeof(Output)); /* also of none */
    int fits = self->output != NULL;
    for (Py_ssize_t index = 0; fits && index < count; index++) {
        self->outputs = index + 1; /* also one that is half filled is released */
        fits = fill_output(&self->output[index], PyTuple_GetItem(outputs, index));
    }
    if (!fits) {
        Py_DECREF(self);
        if (!PyErr_Occurred())
            PyErr_SetString(PyExc_ValueError, "no such output");
        return NULL;
    }
    return (PyObject *)self;
}

static int
wake_traverse(PyObject *object, visitproc visit, void *arg)
{
    Wake *self = (Wake *)object;
    Py_VISIT(Py_TYPE(object));
    Py_VISIT(self->guards);
    Py_VISIT(self->kind);
    for (int index = 0; index < INPUT_GIVEN; index++)
        Py_VISIT(self->parts[index]);
    for (Py_ssize_t each = 0; each < self->outputs; each++)
        for (int index = 0; index < OUTPUT_PARTS; index++)
            Py_VISIT(self->output[each].parts[index]);
    return 0;
}

static int
wake_clear(PyObject *object)
{
    Wake *self = (Wake *)object;
    Py_ssize_t outputs = self->outputs;
    self->outputs = 0; /* nothing may be sent any more */
    for (Py_ssize_t each = 0; each < outputs; each++)
        clear_output(&self->output[each]);
    PyMem_Free(self->output);
    self->output = NULL;
    for (int index = 0; index < INPUT_GIVEN; index++)
        Py_CLEAR(self->parts[index]);
    Py_CLEAR(self->guards);
    Py_CLEAR(self->kind);
    return 0;
}

static void
wake_dealloc(PyObject *object)
{
    PyTypeObject *type = Py_TYPE(object);
    PyObject_GC_UnTrack(object);
    wake_clear(object);
    freefunc release = (freefunc)PyType_GetSlot(type, Py_tp_free);
    release(object);
    Py_DECREF(type);
}

static PyMethodDef wake_methods[] = {
    {"take", (PyCFunction)(void (*)(void))wake_take, METH_FASTCALL, NULL},
    {"hear", (PyCFunction)(void (*)(void))wake_hear, METH_FASTCALL, NULL},
    {"send", (PyCFunction)(void (*)(void))wake_send, METH_FASTCALL, NULL},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot wake_slots[] = {
    {Py_tp_new, wake_new},         {Py_tp_dealloc, wake_dealloc}, {Py_tp_traverse, wake_traverse},
    {Py_tp_clear, wake_clear},     {Py_tp_methods, wake_methods}, {0, NULL},
};

static PyType_Spec wake_spec = {
    .name = "relay_worker.native._runs.Wake",
    .basicsize = sizeof(Wake),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
    .slots = wake_slots,
};

static PyTypeObject *wake_type; /* the module keeps it alive, and is never unloaded */

int
is_wake_of(PyObject *object, PyObject *session)
{
    return Py_IS_TYPE(object, wake_type) && ((Wake *)object)->parts[SESSION] == session;
}

int
add_wakes(PyObject *module)
{
    if (intern_names() || add_kept(module))
        return -1;
    PyObject *wake = PyType_FromModuleAndSpec(module, &wake_spec, NULL);
    wake_type = (PyTypeObject *)wake;
    int failed = wake == NULL || PyModule_AddObjectRef(module, "Wake", wake);
    Py_XDECREF(wake);
    return failed ? -1 : 0;
}
