/* Runs of plain packets: the inner loops of the data path, compiled.
 *
 * The Python beside each call is the specification. Every function here takes what is plain from the front of a run and
 * returns where it stopped; whatever is not plain is left to the Python, which would have given the same for the rest.
 * Bytes come from a network: each read is behind a comparison with the length of the object that is read.
 *
 * Only the limited API of CPython 3.11 is used, so that one build serves every later version.
 */

#define PY_SSIZE_T_CLEAN
#define Py_LIMITED_API 0x030B0000
#include <Python.h>

#include <errno.h>
#include <netinet/in.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>

#ifndef UDP_SEGMENT
#define UDP_SEGMENT 103 /* linux/udp.h; glibc has had it since 2.28 */
#endif

enum {
    RTP_HEADER = 12,
    DOLLAR = 0x24,    /* RFC 2326 §10.12 */
    FU_A = 28,        /* RFC 6184 §5.8, as the next two */
    FU_START = 0x80,
    FU_END = 0x40,
    MAX_SLOTS = 64,   /* and the packets of one segmented send: UDP_MAX_SEGMENTS of older kernels */
    MAX_RUN_BYTES = 65000,
};

static uint32_t
read16(const uint8_t *at)
{
    return (uint32_t)at[0] << 8 | at[1];
}

static uint32_t
read32(const uint8_t *at)
{
    return read16(at) << 16 | read16(at + 2);
}

static void
write16(uint8_t *at, uint32_t value)
{
    at[0] = (uint8_t)(value >> 8);
    at[1] = (uint8_t)value;
}

static void
write32(uint8_t *at, uint32_t value)
{
    write16(at, value >> 16);
    write16(at + 2, value);
}

static int
wrong_arguments(const char *name, Py_ssize_t given, Py_ssize_t wanted)
{
    if (given == wanted)
        return 0;
    PyErr_Format(PyExc_TypeError, "%s takes %zd arguments, not %zd", name, wanted, given);
    return 1;
}

/* An unsigned number of at most 32 bits; anything else raises, and -1 is returned. */
static int64_t
number(PyObject *object)
{
    unsigned long value = PyLong_AsUnsignedLong(object);
    if (value == (unsigned long)-1 && PyErr_Occurred())
        return -1;
    if (value > UINT32_MAX) {
        PyErr_SetString(PyExc_OverflowError, "more than 32 bits");
        return -1;
    }
    return (int64_t)value;
}

/* The item at `index` as (payload, marker): 1, with a borrowed payload; 0 when it is anything else. */
static int
payload_at(PyObject *payloads, Py_ssize_t index, PyObject **payload, int *marker)
{
    PyObject *item = PyList_GetItem(payloads, index);
    if (item == NULL) {
        PyErr_Clear();
        return 0;
    }
    if (!PyTuple_CheckExact(item) || PyTuple_Size(item) != 2)
        return 0;
    *payload = PyTuple_GetItem(item, 0);
    PyObject *second = PyTuple_GetItem(item, 1);
    if (!PyBytes_CheckExact(*payload) || (second != Py_True && second != Py_False))
        return 0;
    *marker = second == Py_True;
    return 1;
}

/* split_frames(buffer: bytes, position, packets: dict[int, list[bytes]]) -> position */
static PyObject *
split_frames(PyObject *Py_UNUSED(module), PyObject *const *arguments, Py_ssize_t count)
{
    if (wrong_arguments("split_frames", count, 3))
        return NULL;
    if (!PyBytes_CheckExact(arguments[0]) || !PyDict_CheckExact(arguments[2])) {
        PyErr_SetString(PyExc_TypeError, "split_frames takes bytes and a dict");
        return NULL;
    }
    const uint8_t *buffer = (const uint8_t *)PyBytes_AsString(arguments[0]);
    Py_ssize_t end = PyBytes_Size(arguments[0]);
    Py_ssize_t position = PyLong_AsSsize_t(arguments[1]);
    if (position < 0) {
        if (!PyErr_Occurred())
            PyErr_SetString(PyExc_ValueError, "a position is not negative");
        return NULL;
    }
    int channel = -1;
    PyObject *list = NULL; /* of `channel`; borrowed from the dict, which nothing here changes */
    while (position <= end - 4 && buffer[position] == DOLLAR) {
        Py_ssize_t size = (Py_ssize_t)read16(buffer + position + 2);
        if (size > end - position - 4)
            break;
        if (buffer[position + 1] != channel) {
            channel = buffer[position + 1];
            PyObject *key = PyLong_FromLong(channel);
            if (key == NULL)
                return NULL;
            list = PyDict_GetItemWithError(arguments[2], key);
            Py_DECREF(key);
            if (list == NULL && PyErr_Occurred())
                return NULL;
            if (list != NULL && !PyList_CheckExact(list))
                list = NULL;
        }
        if (list == NULL)
            break;
        PyObject *packet = PyBytes_FromStringAndSize((const char *)buffer + position + 4, size);
        if (packet == NULL)
            return NULL;
        int failed = PyList_Append(list, packet);
        Py_DECREF(packet);
        if (failed)
            return NULL;
        position += 4 + size;
    }
    return PyLong_FromSsize_t(position);
}

/* take_plain(packets: list[bytes], index, sequence, timestamp, ssrc, payload_type or -1, payloads: list)
 * -> (index after the last that was taken, bytes of those that were taken) */
static PyObject *
take_plain(PyObject *Py_UNUSED(module), PyObject *const *arguments, Py_ssize_t count)
{
    if (wrong_arguments("take_plain", count, 7))
        return NULL;
    PyObject *packets = arguments[0], *payloads = arguments[6];
    if (!PyList_CheckExact(packets) || !PyList_CheckExact(payloads) || packets == payloads) {
        PyErr_SetString(PyExc_TypeError, "take_plain takes two lists");
        return NULL;
    }
    Py_ssize_t index = PyLong_AsSsize_t(arguments[1]), end = PyList_Size(packets), bytes = 0;
    int64_t sequence = number(arguments[2]), timestamp = number(arguments[3]), ssrc = number(arguments[4]);
    long wanted = PyLong_AsLong(arguments[5]);
    if (PyErr_Occurred())
        return NULL;
    for (; index >= 0 && index < end; index++, sequence++) {
        PyObject *packet = PyList_GetItem(packets, index);
        if (packet == NULL)
            return NULL;
        if (!PyBytes_CheckExact(packet))
            break;
        const uint8_t *at = (const uint8_t *)PyBytes_AsString(packet);
        Py_ssize_t size = PyBytes_Size(packet);
        /* The first octet of nearly every packet: neither padding, extension nor CSRC. */
        if (size < RTP_HEADER || at[0] != 0x80 || read16(at + 2) != sequence || read32(at + 4) != timestamp ||
            read32(at + 8) != ssrc || (wanted >= 0 && (at[1] & 0x7F) != wanted))
            break;
        PyObject *payload = PyBytes_FromStringAndSize((const char *)at + RTP_HEADER, size - RTP_HEADER);
        PyObject *pair = payload == NULL ? NULL : PyTuple_Pack(2, payload, at[1] > 127 ? Py_True : Py_False);
        int failed = pair == NULL || PyList_Append(payloads, pair);
        Py_XDECREF(payload);
        Py_XDECREF(pair);
        if (failed)
            return NULL;
        bytes += size;
    }
    return Py_BuildValue("nn", index, bytes);
}

/* pass_fragments(payloads, index, most, ends: bool) -> (index, end): the stretch of FU-A fragments from `index` that go
 * out as they came. `end` is 0 while the NAL unit goes on, 1 behind its last fragment, 2 when that one was marked. */
static PyObject *
pass_fragments(PyObject *Py_UNUSED(module), PyObject *const *arguments, Py_ssize_t count)
{
    if (wrong_arguments("pass_fragments", count, 4))
        return NULL;
    PyObject *payloads = arguments[0], *payload;
    if (!PyList_CheckExact(payloads)) {
        PyErr_SetString(PyExc_TypeError, "pass_fragments takes a list");
        return NULL;
    }
    Py_ssize_t index = PyLong_AsSsize_t(arguments[1]), most = PyLong_AsSsize_t(arguments[2]);
    if (PyErr_Occurred())
        return NULL;
    int marker, end = 0, ends = arguments[3] == Py_True;
    for (; index >= 0 && payload_at(payloads, index, &payload, &marker); index++) {
        const uint8_t *at = (const uint8_t *)PyBytes_AsString(payload);
        Py_ssize_t size = PyBytes_Size(payload);
        if (size < 3 || size > most || (at[0] & 0x1F) != FU_A || at[1] >= FU_START)
            break;
        if (at[1] & FU_END) {
            if (!ends)
                break;
            end = marker ? 2 : 1;
            index++;
            break;
        }
        if (marker)
            break;
    }
    return Py_BuildValue("ni", index, end);
}

/* measure(payloads, most) -> bytes of all, or -1 when one of them is longer than `most`, or not plain bytes */
static PyObject *
measure(PyObject *Py_UNUSED(module), PyObject *const *arguments, Py_ssize_t count)
{
    if (wrong_arguments("measure", count, 2))
        return NULL;
    Py_ssize_t most = PyLong_AsSsize_t(arguments[1]), bytes = 0;
    if (PyErr_Occurred())
        return NULL;
    if (!PyList_CheckExact(arguments[0]))
        return PyLong_FromLong(-1);
    Py_ssize_t end = PyList_Size(arguments[0]);
    for (Py_ssize_t index = 0; index < end; index++) {
        PyObject *payload;
        int marker;
        if (!payload_at(arguments[0], index, &payload, &marker) || PyBytes_Size(payload) > most)
            return PyLong_FromLong(-1);
        bytes += PyBytes_Size(payload);
    }
    return PyLong_FromSsize_t(bytes);
}

/* --- packets out ---------------------------------------------------------------------------------------------- */

/* libsrtp's srtp_protect, as pylibsrtp has loaded it. */
typedef int (*protect_function)(void *context, void *packet, int *length);

typedef struct {
    PyObject_HEAD
    PyObject *owner;    /* of the context */
    Py_buffer buffer;   /* `slots` slots of `slot_size` bytes */
    Py_ssize_t slots, slot_size, trailer;
    protect_function protect;
    void *context;
    int lengths[MAX_SLOTS];      /* of the packet in each */
    uint16_t numbers[MAX_SLOTS]; /* and its transport-wide number */
} Slots;

/* Slots(buffer, slot_size, trailer, protect, context, owner) */
static PyObject *
slots_new(PyTypeObject *type, PyObject *arguments, PyObject *keywords)
{
    PyObject *buffer, *protect, *context, *owner;
    Py_ssize_t slot_size, trailer;
    if (keywords != NULL && PyDict_Size(keywords)) {
        PyErr_SetString(PyExc_TypeError, "Slots takes no keywords");
        return NULL;
    }
    if (!PyArg_ParseTuple(arguments, "OnnOOO", &buffer, &slot_size, &trailer, &protect, &context, &owner))
        return NULL;
    uintptr_t function = (uintptr_t)PyLong_AsSize_t(protect), pointer = (uintptr_t)PyLong_AsSize_t(context);
    if (PyErr_Occurred())
        return NULL;
    if (!function || !pointer || trailer < 0 || slot_size < trailer + 64 || slot_size > 8192 || slot_size % 4) {
        PyErr_SetString(PyExc_ValueError, "no such slots");
        return NULL;
    }
    allocfunc allocate = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
    Slots *self = (Slots *)allocate(type, 0);
    if (self == NULL)
        return NULL;
    if (PyObject_GetBuffer(buffer, &self->buffer, PyBUF_WRITABLE)) {
        Py_DECREF(self);
        return NULL;
    }
    self->slots = self->buffer.len / slot_size;
    if (self->slots > MAX_SLOTS)
        self->slots = MAX_SLOTS;
    self->slot_size = slot_size;
    self->trailer = trailer;
    self->protect = (protect_function)function;
    self->context = (void *)pointer;
    Py_INCREF(owner);
    self->owner = owner;
    return (PyObject *)self;
}

static void
slots_dealloc(PyObject *object)
{
    Slots *self = (Slots *)object;
    PyTypeObject *type = Py_TYPE(object);
    if (self->buffer.obj != NULL)
        PyBuffer_Release(&self->buffer);
    Py_XDECREF(self->owner);
    freefunc release = (freefunc)PyType_GetSlot(type, Py_tp_free);
    release(object);
    Py_DECREF(type);
}

/* RFC 3550 §5.1 and RFC 8285 §4.2; ids of 0 for extensions that were not agreed. */
static void
write_header(uint8_t *at, uint32_t first_word, uint32_t timestamp, uint32_t ssrc, uint32_t time_id,
             uint32_t send_time, uint32_t number_id, uint32_t transport_number)
{
    write32(at, first_word);
    write32(at + 4, timestamp);
    write32(at + 8, ssrc);
    if (!time_id && !number_id)
        return;
    at[0] |= 0x10;
    write32(at + 12, 0xBEDE0000u | (time_id && number_id ? 2 : 1));
    at += 16;
    if (time_id) {
        write32(at, time_id << 28 | 2u << 24 | (send_time & 0xFFFFFF));
        at += 4;
    }
    if (number_id)
        /* one octet of padding behind it */
        write32(at, number_id << 28 | 1u << 24 | (transport_number & 0xFFFF) << 8);
}

/* put(payloads, index, slot, payload_type, sequence, timestamp, step, ssrc, time_id, send_time, number_id, number)
 * -> (index, slot, refused): writes and encrypts payloads from `index` on into slots from `slot` on, until the slots are
 * full or a payload is not plain. A packet that libsrtp refuses takes no slot. */
static PyObject *
slots_put(PyObject *object, PyObject *const *arguments, Py_ssize_t count)
{
    Slots *self = (Slots *)object;
    if (wrong_arguments("put", count, 12))
        return NULL;
    if (!PyList_CheckExact(arguments[0])) {
        PyErr_SetString(PyExc_TypeError, "put takes a list");
        return NULL;
    }
    Py_ssize_t index = PyLong_AsSsize_t(arguments[1]), slot = PyLong_AsSsize_t(arguments[2]);
    int64_t values[9];
    for (int each = 0; each < 9; each++) {
        values[each] = number(arguments[3 + each]);
        if (values[each] < 0)
            return NULL;
    }
    if (PyErr_Occurred())
        return NULL;
    uint32_t payload_type = (uint32_t)values[0], sequence = (uint32_t)values[1], timestamp = (uint32_t)values[2];
    uint32_t step = (uint32_t)values[3], ssrc = (uint32_t)values[4], time_id = (uint32_t)values[5];
    uint32_t send_time = (uint32_t)values[6], number_id = (uint32_t)values[7], transport_number = (uint32_t)values[8];
    if (index < 0 || slot < 0 || payload_type > 127 || time_id > 14 || number_id > 14) {
        PyErr_SetString(PyExc_ValueError, "no such packet");
        return NULL;
    }
    int refused = 0, marker;
    PyObject *payload;
    for (; slot < self->slots && payload_at(arguments[0], index, &payload, &marker); index++) {
        uint8_t *at = (uint8_t *)self->buffer.buf + slot * self->slot_size;
        uint32_t first_word = 0x80000000u | (marker ? 0x80u : 0u) << 16 | payload_type << 16 | (sequence & 0xFFFF);
        Py_ssize_t header = RTP_HEADER + (time_id || number_id ? 4 : 0) + (time_id ? 4 : 0) + (number_id ? 4 : 0);
        Py_ssize_t size = PyBytes_Size(payload);
        if (size > self->slot_size - self->trailer - header)
            break;
        write_header(at, first_word, timestamp, ssrc, time_id, send_time, number_id, transport_number);
        memcpy(at + header, PyBytes_AsString(payload), (size_t)size);
        int length = (int)(header + size);
        if (self->protect(self->context, at, &length) || length <= 0 || length > self->slot_size)
            refused++;
        else {
            self->numbers[slot] = (uint16_t)transport_number;
            self->lengths[slot++] = length;
        }
        sequence++;
        transport_number++;
        timestamp += step;
    }
    return Py_BuildValue("nni", index, slot, refused);
}

/* packet(slot) -> (length, transport-wide number) of the packet in that slot */
static PyObject *
slots_packet(PyObject *object, PyObject *argument)
{
    Slots *self = (Slots *)object;
    Py_ssize_t slot = PyLong_AsSsize_t(argument);
    if (slot < 0 || slot >= self->slots) {
        if (!PyErr_Occurred())
            PyErr_SetString(PyExc_IndexError, "no such slot");
        return NULL;
    }
    return Py_BuildValue("ii", self->lengths[slot], (int)self->numbers[slot]);
}

/* send(fd, address, first, end) -> (first, behind, calls, errno): sends the packets in the slots from `first` to `end`,
 * those of equal size with one call. With an errno, the call for the slots from `first` to `behind` has failed, and
 * nothing of them or behind them was sent. */
static PyObject *
slots_send(PyObject *object, PyObject *const *arguments, Py_ssize_t count)
{
    Slots *self = (Slots *)object;
    if (wrong_arguments("send", count, 4))
        return NULL;
    long fd = PyLong_AsLong(arguments[0]);
    Py_ssize_t first = PyLong_AsSsize_t(arguments[2]), end = PyLong_AsSsize_t(arguments[3]);
    if (PyErr_Occurred())
        return NULL;
    if (!PyBytes_CheckExact(arguments[1]) || PyBytes_Size(arguments[1]) > (Py_ssize_t)sizeof(struct sockaddr_storage) ||
        first < 0 || end > self->slots) {
        PyErr_SetString(PyExc_ValueError, "send takes an address and slots");
        return NULL;
    }
    struct iovec pieces[MAX_SLOTS];
    union {
        struct cmsghdr header; /* for its alignment */
        char bytes[CMSG_SPACE(sizeof(uint16_t))];
    } control;
    Py_ssize_t next = first;
    int calls = 0, error = 0;
    while (first < end && !error) {
        int size = self->lengths[first], used = 0;
        if (size <= 0)
            size = 1; /* a slot that was never filled; `put` leaves none before `end` */
        next = first;
        while (next < end && used < MAX_SLOTS && (used + 1) * size <= MAX_RUN_BYTES) {
            int length = self->lengths[next];
            if (used && length > size)
                break;
            pieces[used].iov_base = (char *)self->buffer.buf + next * self->slot_size;
            pieces[used++].iov_len = (size_t)length;
            next++;
            if (length < size) /* only the last segment may be shorter */
                break;
        }
        struct msghdr message;
        memset(&message, 0, sizeof message);
        message.msg_name = PyBytes_AsString(arguments[1]);
        message.msg_namelen = (socklen_t)PyBytes_Size(arguments[1]);
        message.msg_iov = pieces;
        message.msg_iovlen = (size_t)used;
        if (used > 1) {
            memset(&control, 0, sizeof control);
            message.msg_control = control.bytes;
            message.msg_controllen = sizeof control.bytes;
            struct cmsghdr *segment = CMSG_FIRSTHDR(&message);
            segment->cmsg_level = IPPROTO_UDP;
            segment->cmsg_type = UDP_SEGMENT;
            segment->cmsg_len = CMSG_LEN(sizeof(uint16_t));
            uint16_t bytes = (uint16_t)size;
            memcpy(CMSG_DATA(segment), &bytes, sizeof bytes);
        }
        ssize_t sent;
        do
            sent = sendmsg((int)fd, &message, MSG_DONTWAIT);
        while (sent < 0 && errno == EINTR);
        calls++;
        if (sent < 0)
            error = errno;
        else
            first = next;
    }
    return Py_BuildValue("nnii", first, next, calls, error);
}

static PyMethodDef slots_methods[] = {
    {"put", (PyCFunction)(void (*)(void))slots_put, METH_FASTCALL, NULL},
    {"send", (PyCFunction)(void (*)(void))slots_send, METH_FASTCALL, NULL},
    {"packet", slots_packet, METH_O, NULL},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot slots_slots[] = {
    {Py_tp_new, slots_new},
    {Py_tp_dealloc, slots_dealloc},
    {Py_tp_methods, slots_methods},
    {0, NULL},
};

static PyType_Spec slots_spec = {
    .name = "relay_worker.native._runs.Slots",
    .basicsize = sizeof(Slots),
    .flags = Py_TPFLAGS_DEFAULT,
    .slots = slots_slots,
};

static PyMethodDef functions[] = {
    {"split_frames", (PyCFunction)(void (*)(void))split_frames, METH_FASTCALL, NULL},
    {"take_plain", (PyCFunction)(void (*)(void))take_plain, METH_FASTCALL, NULL},
    {"pass_fragments", (PyCFunction)(void (*)(void))pass_fragments, METH_FASTCALL, NULL},
    {"measure", (PyCFunction)(void (*)(void))measure, METH_FASTCALL, NULL},
    {NULL, NULL, 0, NULL},
};

static int
fill(PyObject *module)
{
    PyObject *type = PyType_FromModuleAndSpec(module, &slots_spec, NULL);
    if (type == NULL)
        return -1;
    int failed = PyModule_AddObjectRef(module, "Slots", type);
    Py_DECREF(type);
    return failed;
}

static PyModuleDef_Slot module_slots[] = {
    {Py_mod_exec, fill},
    {0, NULL},
};

static struct PyModuleDef definition = {
    .m_base = PyModuleDef_HEAD_INIT,
    .m_name = "_runs",
    .m_size = 0,
    .m_methods = functions,
    .m_slots = module_slots,
};

PyMODINIT_FUNC
PyInit__runs(void)
{
    return PyModuleDef_Init(&definition);
}
