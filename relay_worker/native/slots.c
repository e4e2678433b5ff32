/* Packets in the slots of a buffer: written, encrypted in place by libsrtp, and sent with as few calls as possible. */

#include "packets.h"

#include <errno.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/uio.h>

#ifndef UDP_SEGMENT
#define UDP_SEGMENT 103 /* linux/udp.h; glibc has had it since 2.28 */
#endif

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

/* RFC 3550 §5.1 and RFC 8285 §4.2. */
int
write_packet(Slots *self, Py_ssize_t slot, const Header *header, int marker, const uint8_t *payload, size_t size)
{
    uint8_t *start = (uint8_t *)self->buffer.buf + slot * self->slot_size, *at = start;
    uint32_t time_id = header->time_id, number_id = header->number_id;
    size_t words = (time_id ? 1 : 0) + (number_id ? 1 : 0), ahead = RTP_HEADER + (words ? 4 + 4 * words : 0);
    if (size > (size_t)(self->slot_size - self->trailer) - ahead)
        return -1;
    write32(at, (words ? 0x90000000u : 0x80000000u) | (marker ? 0x80u : 0u) << 16 | header->payload_type << 16 |
                    (header->sequence & 0xFFFF));
    write32(at + 4, header->timestamp);
    write32(at + 8, header->ssrc);
    if (words) {
        write32(at + 12, 0xBEDE0000u | (uint32_t)words);
        at += 16;
    }
    if (time_id) {
        write32(at, time_id << 28 | 2u << 24 | (header->send_time & 0xFFFFFF));
        at += 4;
    }
    if (number_id)
        /* one octet of padding behind it */
        write32(at, number_id << 28 | 1u << 24 | (header->number & 0xFFFF) << 8);
    memcpy(start + ahead, payload, size);
    int length = (int)(ahead + size);
    if (self->protect(self->context, start, &length) || length <= 0 || length > self->slot_size)
        return 0;
    self->numbers[slot] = (uint16_t)header->number;
    self->lengths[slot] = length;
    return 1;
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
    Header header = {
        .payload_type = (uint32_t)values[0],
        .sequence = (uint32_t)values[1],
        .timestamp = (uint32_t)values[2],
        .ssrc = (uint32_t)values[4],
        .time_id = (uint32_t)values[5],
        .send_time = (uint32_t)values[6],
        .number_id = (uint32_t)values[7],
        .number = (uint32_t)values[8],
    };
    uint32_t step = (uint32_t)values[3];
    if (index < 0 || slot < 0 || header.payload_type > 127 || header.time_id > 14 || header.number_id > 14) {
        PyErr_SetString(PyExc_ValueError, "no such packet");
        return NULL;
    }
    int refused = 0, marker;
    PyObject *payload;
    for (; slot < self->slots && payload_at(arguments[0], index, &payload, &marker); index++) {
        int written = write_packet(self, slot, &header, marker, (const uint8_t *)PyBytes_AsString(payload),
                                   (size_t)PyBytes_Size(payload));
        if (written < 0)
            break;
        if (written)
            slot++;
        else
            refused++;
        header.sequence++;
        header.number++;
        header.timestamp += step;
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

int
send_slots(Slots *self, int fd, const void *address, size_t address_size, Py_ssize_t *first, Py_ssize_t end,
           Py_ssize_t *behind, int *calls)
{
    struct iovec pieces[MAX_SLOTS];
    union {
        struct cmsghdr header; /* for its alignment */
        char bytes[CMSG_SPACE(sizeof(uint16_t))];
    } control;
    Py_ssize_t next = *first;
    int error = 0;
    while (*first < end && !error) {
        int size = self->lengths[*first], used = 0;
        if (size <= 0)
            size = 1; /* a slot that was never filled; `put` leaves none before `end` */
        next = *first;
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
        message.msg_name = (void *)address;
        message.msg_namelen = (socklen_t)address_size;
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
            sent = sendmsg(fd, &message, MSG_DONTWAIT);
        while (sent < 0 && errno == EINTR);
        ++*calls;
        if (sent < 0)
            error = errno;
        else
            *first = next;
    }
    *behind = next;
    return error;
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
    Py_ssize_t behind = first;
    int calls = 0;
    int error = send_slots(self, (int)fd, PyBytes_AsString(arguments[1]), (size_t)PyBytes_Size(arguments[1]), &first, end,
                           &behind, &calls);
    return Py_BuildValue("nnii", first, behind, calls, error);
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

static PyTypeObject *slots_type;

int
is_slots(PyObject *object)
{
    return slots_type != NULL && Py_IS_TYPE(object, slots_type);
}

int
add_slots(PyObject *module)
{
    PyObject *type = PyType_FromModuleAndSpec(module, &slots_spec, NULL);
    if (type == NULL)
        return -1;
    slots_type = (PyTypeObject *)type; /* the module keeps it alive, and is never unloaded */
    return PyModule_AddObjectRef(module, "Slots", type);
}
