/* One plain wake of one camera, in one call: from decrypted bytes to `sendmsg`.
 *
 * The Python is the specification, and keeps the state, in slots of its objects (state.h): their numbers are copied into
 * `Value`s, all is worked out on these, and only when the whole wake has turned out to be plain are they copied back and
 * packets sent. Otherwise nothing has changed, and the Python takes the wake. So no object ever shows
 * anything but the truth, and either of the two may take any wake. Where all is plain but for an output that would not send
 * it at once (its pacer holds pictures, or is to spread a large one), the pictures are taken in, and the Python sends them;
 * likewise where the wake was made of no outputs.
 *
 * Plain is: whole RTP packets of the video without padding, extension, CSRC and loss, with pictures that are plain, too
 * (pictures.c); no capture. Packets of other channels are passed to the parser's lists.
 */

#include "wake.h"

int
is_kept(const Wake *self)
{
    for (Py_ssize_t index = 0; index < self->outputs; index++)
        if (self->output[index].parts[HISTORY] != Py_None)
            return 1;
    return 0;
}

/* Packets of other channels: one of sound is heard at once, and nothing is left then; others are for the Python. -1 with an
 * exception. */
static int
pass_others(Work *work, PyObject *const *parts, PyObject *lists, PyObject *now)
{
    int heard = listen_beside(work, parts, now);
    if (heard > 0)
        work->other_count = 0;
    return heard ? heard < 0 : leave_others(work, lists);
}

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
        return PyLong_FromLong(NO_VIDEO);
    plain = plain && work_out_input(&work, parts, now);
    int whole = plain && self->outputs, failed = 0;
    for (Py_ssize_t index = 0; whole && index < self->outputs; index++)
        whole = work_out_output(&work, &self->output[index], now);
    PyErr_Clear(); /* of what is no number */
    if (plain) {
        PyObject *material = Py_NewRef(work.cut != NULL ? work.cut : buffer);
        work.v[whole ? f_taken_whole : f_taken_in].i++;
        failed = keep_input(&work, parts, self->kind, now_object);
        for (Py_ssize_t index = 0; whole && !failed && index < self->outputs; index++)
            failed = keep_output(&self->output[index]);
        if (whole && !failed && is_kept(self))
            material = stow(&work, material);
        for (int number = 0; !failed && number < work.run_count; number++) {
            const Run *run = &work.runs[number];
            if (!whole && has_payloads(run))
                failed = hand_on(&work, run, parts[PIPELINE], n__passed, material);
            for (Py_ssize_t index = 0; whole && !failed && has_payloads(run) && index < self->outputs; index++)
                failed = send_run(&work, run, &self->output[index], material, now_object, now);
        }
        Py_DECREF(material);
        if (!failed && work.other_count)
            failed = pass_others(&work, parts, lists, now_object);
    }
    Py_XDECREF(work.cut);
    if (failed)
        return NULL;
    return PyLong_FromLong(!plain ? 0 : work.other_count ? OTHERS_LEFT : DONE);
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
    if (!is_guarded(self))
        return PyLong_FromLong(-1);
    if (self->parts[TRACK] == Py_None) /* made of no track: it sends sound */
        return PyLong_FromLong(0);
    PyObject *parts[INPUT_PARTS];
    memcpy(parts, self->parts, sizeof self->parts);
    PyObject *lists = ATTRIBUTE(parts[PARSER], lists), *rest = ATTRIBUTE(parts[PARSER], rest);
    parts[CLOCK] = ATTRIBUTE(parts[TRACK], clock);
    PyObject *buffer = NULL, *done;
    /* without a clock a mapping has to be started */
    if (parts[CLOCK] != NULL && is_state(parts[CLOCK], CLOCK) && lists != NULL && PyDict_CheckExact(lists) &&
        rest != NULL && PyBytes_CheckExact(rest))
        buffer = PyBytes_Size(rest) ? PySequence_Concat(rest, arguments[0]) : Py_NewRef(arguments[0]);
    if (buffer != NULL) {
        Py_INCREF(lists);
        Py_INCREF(parts[CLOCK]);
        done = taker(self, parts, lists, buffer, arguments[1]);
        Py_DECREF(parts[CLOCK]);
        Py_DECREF(lists);
        Py_DECREF(buffer);
    }
    else {
        PyErr_Clear();
        done = PyLong_FromLong(0);
    }
    return done;
}

/* 1 when it is done, 2 when packets of other channels are in the parser's lists besides, 3 when only such have come; then
 * nothing has happened. */
PyObject *
wake_take(PyObject *object, PyObject *const *arguments, Py_ssize_t count)
{
    return take_with(object, arguments, count, "take", take_bytes);
}

/* 1 where sound that came alone has been sent, or (access unit, its media time) of it. */
PyObject *
wake_hear(PyObject *object, PyObject *const *arguments, Py_ssize_t count)
{
    return take_with(object, arguments, count, "hear", hear_bytes);
}

/* Whether the parts are what they should be: all of them, or none where only sound is sent. */
static int
are_parts(PyObject *input)
{
    int none = PyTuple_GetItem(input, TRACK) == Py_None;
    for (int index = 0; index < INPUT_GIVEN; index++) {
        PyObject *part = PyTuple_GetItem(input, index);
        int may_lack = index == PASSTHROUGH || index == UNITS || index == REORDER || index == WAIT;
        if (part == Py_None ? !none && !may_lack : none || !is_state(part, index))
            return 0;
    }
    return (PyTuple_GetItem(input, REORDER) == Py_None) == (PyTuple_GetItem(input, WAIT) == Py_None);
}

/* Wake(guards: tuple, input parts: tuple, outputs: tuple, kind, channel, RTCP channel, parts of what transcodes or None) */
static PyObject *
wake_new(PyTypeObject *type, PyObject *arguments, PyObject *keywords)
{
    PyObject *guards, *input, *outputs, *kind, *transcoding = Py_None;
    int channel, control;
    if (keywords != NULL && PyDict_Size(keywords)) {
        PyErr_SetString(PyExc_TypeError, "Wake takes no keywords");
        return NULL;
    }
    if (!PyArg_ParseTuple(arguments, "O!O!O!Oii|O", &PyTuple_Type, &guards, &PyTuple_Type, &input, &PyTuple_Type, &outputs,
                          &kind, &channel, &control, &transcoding))
        return NULL;
    Py_ssize_t count = PyTuple_Size(outputs);
    if (PyTuple_Size(input) != INPUT_GIVEN || count > MAX_OUTPUTS || !are_parts(input)) {
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
    int fits = self->output != NULL && make_guards(self) &&
               (transcoding == Py_None || fill_transcoding(&self->transcoding, transcoding));
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
    for (int index = 0; index < TRANSCODING_PARTS; index++)
        Py_VISIT(self->transcoding.parts[index]);
    for (Py_ssize_t each = 0; each < self->outputs; each++)
        for (int index = 0; index < OUTPUT_PARTS; index++)
            Py_VISIT(self->output[each].parts[index]);
    for (Py_ssize_t each = 0; each < self->outputs; each++)
        for (int index = 0; index < OUTPUT_METHODS; index++)
            Py_VISIT(self->output[each].methods[index].method);
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
    clear_transcoding(&self->transcoding);
    for (int index = 0; index < INPUT_GIVEN; index++)
        Py_CLEAR(self->parts[index]);
    Py_CLEAR(self->guards);
    PyMem_Free(self->guard);
    self->guard = NULL;
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
    {"release", (PyCFunction)(void (*)(void))wake_release, METH_FASTCALL, NULL},
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
is_wake(PyObject *object)
{
    return Py_IS_TYPE(object, wake_type);
}

int
is_wake_of(PyObject *object, PyObject *session)
{
    return is_wake(object) && ((Wake *)object)->parts[SESSION] == session;
}

int
add_wakes(PyObject *module)
{
    if (intern_names() || add_blocks(module) || add_kept(module))
        return -1;
    PyObject *wake = PyType_FromModuleAndSpec(module, &wake_spec, NULL);
    wake_type = (PyTypeObject *)wake;
    int failed = wake == NULL || PyModule_AddObjectRef(module, "Wake", wake);
    Py_XDECREF(wake);
    return failed ? -1 : 0;
}
