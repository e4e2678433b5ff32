/* libavcodec as PyAV has loaded it: one audio decoder of PyAV's, asked without a packet, a frame and a plane of Python's each
 * time. Either of the two may decode any unit, as both ask the same decoder.
 *
 * Which it is stands in PyAV's object, and is known by its class, with which each AVCodecContext begins. The few fields of
 * AVPacket and AVFrame that are read are those of all versions so far; that they are where they should be is tried out, by
 * libavcodec's own functions. Where anything is not as expected, PyAV is asked as before.
 */

#include "avcodec.h"
#include "library.h"

#include <errno.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { S16 = 1, FLT = 3, S16P = 6, FLTP = 8 }; /* AVSampleFormat */
enum { TRIED = 97 };                           /* bytes, samples: any number */

/* The beginnings of AVPacket, AVBufferRef and AVFrame. */
typedef struct {
    void *buffer;
    uint8_t *data;
    size_t size;
} BufferRef;

struct Packet {
    BufferRef *buffer;
    int64_t pts, dts;
    uint8_t *data;
    int size;
};

struct Frame {
    uint8_t *data[8];
    int linesize[8];
    uint8_t **extended_data;
    int width, height, samples, format;
};

typedef struct Packet Packet;
typedef struct Frame Frame;

/* In the order of `symbols`. */
typedef struct {
    const void *(*class)(void);
    Packet *(*new_packet)(void);
    void (*free_packet)(Packet **packet);
    int (*fill_packet)(Packet *packet, int size);
    void (*empty_packet)(Packet *packet);
    Frame *(*new_frame)(void);
    void (*free_frame)(Frame **frame);
    int (*lay_out)(Frame *frame, int channels, int format, const uint8_t *data, int size, int align);
    int (*send)(void *decoder, const Packet *packet);
    int (*receive)(void *decoder, Frame *frame);
} Avcodec;

static const char *const symbols[] = {
    "avcodec_get_class", "av_packet_alloc", "av_packet_free",           "av_new_packet",       "av_packet_unref",
    "av_frame_alloc",    "av_frame_free",   "avcodec_fill_audio_frame", "avcodec_send_packet", "avcodec_receive_frame",
};

static const char TAG[] = "relay_worker.AVCodecContext";
static Avcodec avcodec;
static int is_known; /* -1 where it cannot be used */

/* Whether a packet and a frame are what they are thought to be. */
static int
is_as_expected(void)
{
    static const uint8_t silence[TRIED * 2];
    Packet *packet = avcodec.new_packet();
    Frame *frame = avcodec.new_frame();
    int is = packet != NULL && frame != NULL && !avcodec.fill_packet(packet, TRIED);
    is = is && packet->size == TRIED && packet->data != NULL && packet->buffer != NULL &&
         packet->buffer->data == packet->data && packet->buffer->size >= TRIED;
    if (is) {
        frame->samples = TRIED; /* from which the size of the data is worked out */
        is = avcodec.lay_out(frame, 1, S16P, silence, sizeof silence, 1) == sizeof silence && frame->data[0] == silence &&
             frame->linesize[0] == sizeof silence;
    }
    if (frame != NULL)
        avcodec.free_frame(&frame);
    if (packet != NULL)
        avcodec.free_packet(&packet);
    return is;
}

/* -1 where it cannot be used. */
static int
find_avcodec(const char *file)
{
    void *found[sizeof symbols / sizeof *symbols];
    _Static_assert(sizeof found == sizeof avcodec, "a function for each symbol");
    if (!find_functions(file, symbols, sizeof symbols / sizeof *symbols, found))
        return -1;
    memcpy(&avcodec, found, sizeof found);
    return is_as_expected() ? 1 : -1;
}

/* What stands at `at`, which may be no address: the kernel is asked, who says so where it is none. */
static int
peek(const int *ends, const void *at, const void **value)
{
    return syscall(SYS_write, ends[1], at, sizeof *value) == sizeof *value && read(ends[0], value, sizeof *value) == sizeof *value;
}

/* The AVCodecContext to which an object of PyAV's points; NULL where it is none. */
static void *
context_in(PyObject *object)
{
    PyObject *size = PyObject_GetAttrString((PyObject *)Py_TYPE(object), "__basicsize__");
    Py_ssize_t words = size == NULL ? 0 : PyLong_AsSsize_t(size) / (Py_ssize_t)sizeof(void *);
    Py_XDECREF(size);
    PyErr_Clear();
    int ends[2];
    if (pipe(ends))
        return NULL;
    void *found = NULL;
    for (Py_ssize_t index = sizeof(PyObject) / sizeof(void *); found == NULL && index < words; index++) {
        void *word = ((void **)object)[index];
        const void *class;
        if (word != NULL && !((uintptr_t)word % sizeof(void *)) && peek(ends, word, &class) && class == avcodec.class())
            found = word;
    }
    close(ends[0]);
    close(ends[1]);
    return found;
}

/* find_decoder(file: str, decoder) -> what compiled code asks this decoder of PyAV's by, or None */
PyObject *
find_decoder(PyObject *Py_UNUSED(module), PyObject *arguments)
{
    const char *file;
    PyObject *object;
    if (!PyArg_ParseTuple(arguments, "sO", &file, &object))
        return NULL;
    if (!is_known)
        is_known = find_avcodec(file);
    void *context = is_known > 0 ? context_in(object) : NULL;
    return context == NULL ? Py_NewRef(Py_None) : PyCapsule_New(context, TAG, NULL);
}

int
fill_decoder(Decoder *self, PyObject *found)
{
    self->context = PyCapsule_GetPointer(found, TAG);
    if (self->context == NULL)
        return 0;
    self->packet = avcodec.new_packet();
    self->frame = avcodec.new_frame();
    return self->packet != NULL && self->frame != NULL;
}

void
clear_decoder(Decoder *self)
{
    if (self->packet != NULL)
        avcodec.free_packet(&self->packet);
    if (self->frame != NULL)
        avcodec.free_frame(&self->frame);
    self->context = NULL;
}

int
decode_directly(Decoder *self, const uint8_t *unit, size_t size, Py_ssize_t stride, Samples *samples)
{
    if (avcodec.fill_packet(self->packet, (int)size)) {
        PyErr_NoMemory();
        return -1;
    }
    memcpy(self->packet->data, unit, size);
    int result = avcodec.send(self->context, self->packet);
    avcodec.empty_packet(self->packet);
    if (result >= 0)
        result = avcodec.receive(self->context, self->frame);
    *samples = (Samples){.refused = result < 0 && result != -EAGAIN};
    if (result < 0)
        return 0;
    const Frame *frame = self->frame;
    int packed = stride == 4 ? FLT : S16, planar = stride == 4 ? FLTP : S16P;
    if ((frame->format != packed && frame->format != planar) || frame->data[1] != NULL || frame->samples < 1 ||
        (self->samples && frame->samples != self->samples) || frame->linesize[0] < frame->samples * (int)stride) {
        samples->refused = 1;
        return 0;
    }
    self->samples = frame->samples;
    samples->data = frame->data[0];
    samples->count = frame->samples;
    return 0;
}

int
has_more(Decoder *self)
{
    int more = 0;
    while (!avcodec.receive(self->context, self->frame))
        more = 1;
    return more;
}
