/* The types that hold the state of a camera's parts. */

#include "state.h"

#include <stddef.h>
#include <structmember.h>

typedef struct {
    int of; /* a type of state */
    Type type;
    const char *name;
} Field;

#define FIELD(part, type, name, attribute) {part, type, attribute},
#define OUTPUT_FIELD(part, type, name, attribute) {OF_OUTPUT + (part), type, attribute},
static const Field fields[] = {INPUT_FIELDS(FIELD) OUTPUT_FIELDS(OUTPUT_FIELD) OTHER_FIELDS(FIELD)};

enum { INPUT_END = INPUT_COUNT, OUTPUT_END = INPUT_END + OUTPUT_COUNT, FIELD_COUNT = OUTPUT_END + OTHER_COUNT };

#define STATE_NAME(name) "relay_worker.native._runs." name "State"
static const char *const type_names[STATE_TYPES] = {
    [SESSION] = STATE_NAME("Session"),
    [PARSER] = STATE_NAME("Parser"),
    [PIPELINE] = STATE_NAME("Pipeline"),
    [INPUT] = STATE_NAME("Input"),
    [RECEIVER] = STATE_NAME("Receiver"),
    [TRACK] = STATE_NAME("Track"),
    [PASSTHROUGH] = STATE_NAME("Passthrough"),
    [UNITS] = STATE_NAME("Units"),
    [REORDER] = STATE_NAME("Reorder"),
    [WAIT] = STATE_NAME("WaitClock"),
    [CLOCK] = STATE_NAME("Clock"),
    [OF_OUTPUT + PACER] = STATE_NAME("Pacer"),
    [OF_OUTPUT + LINE] = STATE_NAME("Line"),
    [OF_OUTPUT + METER] = STATE_NAME("Meter"),
    [OF_OUTPUT + PACER_STATS] = STATE_NAME("PacerStats"),
    [OF_OUTPUT + SENDER] = STATE_NAME("Sender"),
    [OF_OUTPUT + STREAM] = STATE_NAME("Stream"),
    [OF_OUTPUT + STREAM_STATS] = STATE_NAME("StreamStats"),
    [OF_OUTPUT + WRITER] = STATE_NAME("Writer"),
    [OF_OUTPUT + HISTORY] = STATE_NAME("History"),
    [OF_OUTPUT + REPAIR] = STATE_NAME("Repair"),
    [OF_OUTPUT + UPLINK] = STATE_NAME("Uplink"),
    [OF_OUTPUT + PATH] = STATE_NAME("Path"),
    [OF_OUTPUT + PROTECTOR] = STATE_NAME("Protector"),
    [OF_OUTPUT + FEEDBACK] = STATE_NAME("Feedback"),
    [OF_OUTPUT + DELAY] = STATE_NAME("Delay"),
    [MEDIA_OUT] = STATE_NAME("MediaOut"),
    [OUTPUTS] = STATE_NAME("Outputs"),
    [RTSP_SOURCE] = STATE_NAME("Source"),
    [STATE_TRANSCODER] = STATE_NAME("Transcoder"),
    [STATE_SOUND_ENCODER] = STATE_NAME("SoundEncoder"),
    [STATE_SOUND_CLOCK] = STATE_NAME("SoundClock"),
};

static PyTypeObject *state_types[STATE_TYPES]; /* the module keeps them alive, and is never unloaded */
static int slots[FIELD_COUNT];                 /* of each field, within its type */
static int firsts[STATE_TYPES], counts[STATE_TYPES]; /* of the fields that are numbers of a part: the first, how many */
int other_slots[OTHER_COUNT];

/* --- attributes, as the Python sees them -------------------------------------------------------------------------- */

static PyObject *
get_field(PyObject *object, void *closure)
{
    const Field *field = closure;
    const Value *value = &((State *)object)->v[slots[field - fields]];
    switch (field->type) {
    case NUMBER:
        if (value->i == NO_NUMBER)
            return Py_NewRef(Py_None);
        return PyLong_FromLongLong(value->i);
    case INT:
        return PyLong_FromLongLong(value->i);
    case FLAG:
        return PyBool_FromLong((long)value->i);
    case MAYBE:
        if (isnan(value->r))
            return Py_NewRef(Py_None);
        return PyFloat_FromDouble(value->r);
    default:
        return PyFloat_FromDouble(value->r);
    }
}

static int
set_field(PyObject *object, PyObject *given, void *closure)
{
    const Field *field = closure;
    Value *value = &((State *)object)->v[slots[field - fields]];
    if (given == NULL) {
        PyErr_Format(PyExc_TypeError, "%s cannot be deleted", field->name);
        return -1;
    }
    Value made;
    if (field->type == NUMBER && given == Py_None)
        made.i = NO_NUMBER;
    else if (field->type == MAYBE && given == Py_None)
        made.r = NAN;
    else if (field->type == INT || field->type == NUMBER)
        made.i = PyLong_AsLongLong(given);
    else if (field->type == FLAG)
        made.i = PyObject_IsTrue(given);
    else
        made.r = PyFloat_AsDouble(given);
    if (PyErr_Occurred())
        return -1;
    *value = made;
    return 0;
}

/* --- types -------------------------------------------------------------------------------------------------------- */

/* The type of state that an object's class is derived from; -1 where it is none. */
static int
state_of(PyObject *object)
{
    for (PyTypeObject *type = Py_TYPE(object); type != NULL; type = PyType_GetSlot(type, Py_tp_base))
        for (int each = 0; each < STATE_TYPES; each++)
            if (type == state_types[each])
                return each;
    return -1;
}

int
is_state(PyObject *object, int type)
{
    static PyTypeObject *known[STATE_TYPES]; /* the class that was the last of each: kept, so that no other is there */
    PyTypeObject *class = Py_TYPE(object), *before = known[type];
    if (class == before)
        return 1;
    if (!PyObject_TypeCheck(object, state_types[type]))
        return 0;
    known[type] = (PyTypeObject *)Py_NewRef((PyObject *)class);
    Py_XDECREF((PyObject *)before);
    return 1;
}

Value *
find_slot(PyObject *object, const char *name, Type *type)
{
    int of = state_of(object);
    for (int each = 0; each < FIELD_COUNT; each++)
        if (fields[each].of == of && !strcmp(fields[each].name, name)) {
            *type = fields[each].type;
            return &((State *)object)->v[slots[each]];
        }
    return NULL;
}

Value *
input_value(PyObject *object, int field)
{
    return &((State *)object)->v[slots[field]];
}

void
set_object(Value *slot, PyObject *value)
{
    PyObject *before = slot->o;
    slot->o = value;
    Py_XDECREF(before);
}

static int
state_traverse(PyObject *object, visitproc visit, void *arg)
{
    int of = state_of(object);
    Py_VISIT(Py_TYPE(object));
    for (int each = 0; each < FIELD_COUNT; each++)
        if (fields[each].of == of && fields[each].type == OBJECT)
            Py_VISIT(((State *)object)->v[slots[each]].o);
    return 0;
}

static int
state_clear(PyObject *object)
{
    int of = state_of(object);
    for (int each = 0; each < FIELD_COUNT; each++)
        if (fields[each].of == of && fields[each].type == OBJECT)
            set_object(&((State *)object)->v[slots[each]], NULL);
    return 0;
}

static void
state_dealloc(PyObject *object)
{
    PyTypeObject *type = Py_TYPE(object);
    PyObject_GC_UnTrack(object);
    state_clear(object);
    freefunc release = (freefunc)PyType_GetSlot(type, Py_tp_free);
    release(object);
    Py_DECREF(type);
}

/* Slots: the numbers of a part first and in their order, so that they are copied with one call. */
static void
lay_out(int *sizes)
{
    for (int each = 0; each < FIELD_COUNT; each++) {
        int of = fields[each].of;
        slots[each] = sizes[of]++;
        if (each >= OUTPUT_END)
            other_slots[each - OUTPUT_END] = slots[each];
        else if (!counts[of]++)
            firsts[of] = each < INPUT_END ? each : each - INPUT_END;
    }
}

static PyTypeObject *
make_type(PyObject *module, int of, int size, PyGetSetDef *getters)
{
    PyMemberDef members[FIELD_COUNT + 1];
    int objects = 0, numbers = 0;
    memset(members, 0, sizeof members);
    for (int each = 0; each < FIELD_COUNT; each++) {
        const Field *field = &fields[each];
        if (field->of != of)
            continue;
        if (field->type == OBJECT) {
            Py_ssize_t offset = (Py_ssize_t)(offsetof(State, v) + sizeof(Value) * (size_t)slots[each]);
            members[objects++] = (PyMemberDef){.name = field->name, .type = T_OBJECT_EX, .offset = offset};
        }
        else
            getters[numbers++] = (PyGetSetDef){field->name, get_field, set_field, NULL, (void *)field};
    }
    PyType_Slot with[] = {
        {Py_tp_dealloc, state_dealloc}, {Py_tp_traverse, state_traverse}, {Py_tp_clear, state_clear},
        {Py_tp_getset, getters},        {Py_tp_members, members},         {0, NULL},
    };
    PyType_Spec spec = {
        .name = type_names[of],
        .basicsize = (int)(offsetof(State, v) + sizeof(Value) * (size_t)size),
        .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC,
        .slots = with,
    };
    return (PyTypeObject *)PyType_FromModuleAndSpec(module, &spec, NULL);
}

int
add_states(PyObject *module)
{
    static PyGetSetDef getters[FIELD_COUNT + STATE_TYPES]; /* those of a type end with an empty one */
    int sizes[STATE_TYPES] = {0}, at = 0;
    if (state_types[0] != NULL) { /* a second module would be given what the first has made */
        PyErr_SetString(PyExc_ImportError, "the types of state are made once a process");
        return -1;
    }
    lay_out(sizes);
    for (int of = 0; of < STATE_TYPES; of++) {
        state_types[of] = make_type(module, of, sizes[of], getters + at);
        const char *name = strrchr(type_names[of], '.') + 1;
        if (state_types[of] == NULL || PyModule_AddObjectRef(module, name, (PyObject *)state_types[of]))
            return -1;
        while (getters[at++].name != NULL)
            ;
    }
    return 0;
}

/* --- all numbers of a camera's parts ------------------------------------------------------------------------------ */

static void
load(PyObject *const *parts, int count, int from, Value *values)
{
    for (int part = 0; part < count; part++) {
        Value *to = values + firsts[from + part];
        size_t size = sizeof(Value) * (size_t)counts[from + part];
        if (parts[part] == Py_None)
            memset(to, 0, size);
        else
            memcpy(to, ((State *)parts[part])->v, size);
    }
}

static void
store(PyObject *const *parts, int count, int from, const Value *values)
{
    for (int part = 0; part < count; part++)
        if (parts[part] != Py_None)
            memcpy(((State *)parts[part])->v, values + firsts[from + part],
                   sizeof(Value) * (size_t)counts[from + part]);
}

void
load_input(PyObject *const *parts, Value *values)
{
    load(parts, INPUT_PARTS, 0, values);
}

void
load_output(PyObject *const *parts, Value *values)
{
    load(parts, OUTPUT_STATES, OF_OUTPUT, values);
}

void
store_input(PyObject *const *parts, const Value *values)
{
    store(parts, INPUT_PARTS, 0, values);
}

void
store_output(PyObject *const *parts, const Value *values)
{
    store(parts, OUTPUT_STATES, OF_OUTPUT, values);
}
