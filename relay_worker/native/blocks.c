/* Memory of packets that are kept, in blocks of the kernel's beside the heap.
 *
 * A wake's bytes live for as long as the history reaches, those of the next wake are read behind them, and where one of
 * either is small or large the heap is left with holes that fit nothing: it grew by half a megabyte in ten minutes, and
 * stayed so. Here payloads lie one behind the other, in the order in which they are forgotten, and what was read is free
 * again at once: the next wake is read into the same memory.
 */

#include "wake.h"

#include <stdlib.h>
#include <sys/mman.h>

enum {
    BLOCK = 64 * 1024, /* bytes; what is larger gets a block of its own */
    SPARE = 2,
};

typedef struct {
    PyObject_HEAD
    uint8_t *data;
    size_t size, used;
} Block;

static PyTypeObject *block_type;
static Block *filling; /* what is kept next goes there */
/* Memory of blocks that nobody uses. One is emptied about as often as one is begun, but not in turns: with a single one kept,
 * memory was given back and taken anew several times a second. */
static uint8_t *spare[SPARE];
static int spares;

/* NULL where there is none. */
static uint8_t *
take_memory(size_t size)
{
    if (size == BLOCK && spares)
        return spare[--spares];
#ifdef __SANITIZE_ADDRESS__ /* which knows where this ends */
    return malloc(size);
#else
    uint8_t *data = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return data == MAP_FAILED ? NULL : data;
#endif
}

static void
give_back(uint8_t *data, size_t size)
{
    if (size == BLOCK && spares < SPARE) {
        spare[spares++] = data;
        return;
    }
#ifdef __SANITIZE_ADDRESS__
    free(data);
#else
    munmap(data, size);
#endif
}

static void
block_dealloc(PyObject *object)
{
    Block *self = (Block *)object;
    if (self->data != NULL)
        give_back(self->data, self->size);
    PyTypeObject *type = Py_TYPE(object);
    freefunc release = (freefunc)PyType_GetSlot(type, Py_tp_free);
    release(object);
    Py_DECREF(type);
}

static PyType_Slot block_slots[] = {
    {Py_tp_dealloc, block_dealloc},
    {0, NULL},
};

static PyType_Spec block_spec = {
    .name = "relay_worker.native._runs.Block",
    .basicsize = sizeof(Block),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = block_slots,
};

int
add_blocks(PyObject *Py_UNUSED(module))
{
    block_type = (PyTypeObject *)PyType_FromSpec(&block_spec); /* kept alive, as is the module */
    return block_type == NULL ? -1 : 0;
}

/* NULL with an exception. */
static Block *
block_new(size_t size)
{
    allocfunc allocate = (allocfunc)PyType_GetSlot(block_type, Py_tp_alloc);
    Block *self = (Block *)allocate(block_type, 0); /* all zeros */
    if (self == NULL)
        return NULL;
    self->data = take_memory(size);
    self->size = size;
    if (self->data == NULL) {
        Py_DECREF(self);
        PyErr_NoMemory();
        return NULL;
    }
    return self;
}

/* A block with room for so many bytes behind its `used`; a new reference, NULL with an exception. */
static Block *
block_for(size_t size)
{
    if (size > BLOCK)
        return block_new(size);
    /* where nothing in it is kept any more: */
    if (filling != NULL && Py_REFCNT((PyObject *)filling) == 1)
        filling->used = 0;
    if (filling == NULL || size > filling->size - filling->used) {
        Block *next = block_new(BLOCK);
        if (next == NULL)
            return NULL;
        Py_XDECREF((PyObject *)filling);
        filling = next;
    }
    return (Block *)Py_NewRef((PyObject *)filling);
}

const uint8_t *
material_data(PyObject *material)
{
    return Py_IS_TYPE(material, block_type) ? ((Block *)material)->data : (const uint8_t *)PyBytes_AsString(material);
}

/* Whether these bytes are the last ones of the block: where there are several outputs, the first has put them there. */
static int
ends_with(const Block *block, PyObject *payloads, size_t size)
{
    if (size > block->used)
        return 0;
    const uint8_t *at = block->data + block->used - size;
    PyObject *payload;
    int marker;
    for (Py_ssize_t index = 0; payload_at(payloads, index, &payload, &marker); index++) {
        size_t part = (size_t)PyBytes_Size(payload);
        if (memcmp(at, PyBytes_AsString(payload), part))
            return 0;
        at += part;
    }
    return 1;
}

PyObject *
stow_payloads(PyObject *payloads, size_t size, Piece *pieces)
{
    Block *block;
    if (filling != NULL && ends_with(filling, payloads, size)) {
        block = (Block *)Py_NewRef((PyObject *)filling);
        block->used -= size;
    }
    else if ((block = block_for(size)) == NULL)
        return NULL;
    PyObject *payload;
    int marker;
    for (Py_ssize_t index = 0; payload_at(payloads, index, &payload, &marker); index++) {
        size_t part = (size_t)PyBytes_Size(payload);
        pieces[index] = (Piece){(uint32_t)block->used, (uint32_t)part, marker};
        memcpy(block->data + block->used, PyBytes_AsString(payload), part);
        block->used += part;
    }
    return (PyObject *)block;
}

PyObject *
stow(Work *work, PyObject *material)
{
    size_t size = 0;
    const Piece *end = work->payloads + work->payload_count;
    for (const Piece *payload = work->payloads; payload != end; payload++)
        size += payload->size;
    Block *block = block_for(size);
    if (block == NULL) {
        PyErr_Clear();
        return material; /* which is kept whole then */
    }
    const uint8_t *from = material_data(material);
    for (Piece *payload = work->payloads; payload != end; payload++) {
        memcpy(block->data + block->used, from + payload->offset, payload->size);
        payload->offset = (uint32_t)block->used;
        block->used += payload->size;
    }
    Py_DECREF(material);
    return (PyObject *)block;
}
