/* An audio decoder of PyAV's, and what it makes of one access unit. */

#ifndef RELAY_AVCODEC_H
#define RELAY_AVCODEC_H

#include "packets.h"

typedef struct {
    void *context; /* libavcodec's, which an object of PyAV's keeps; NULL where that is asked */
    struct Packet *packet;
    struct Frame *frame;
    int samples; /* of each unit so far; 0 before the first */
} Decoder;

typedef struct {
    const uint8_t *data; /* until the decoder is asked again; NULL where a unit has made none */
    Py_ssize_t count;    /* of samples, of one channel */
    int refused;         /* it could not be decoded, or to something else than before */
} Samples;

/* Of what `find_decoder` has found; 0 with an exception, or where there is no memory. */
int fill_decoder(Decoder *decoder, PyObject *found);
void clear_decoder(Decoder *decoder);

/* Decode a unit to samples of `stride` bytes. -1 with an exception. */
int decode_directly(Decoder *decoder, const uint8_t *unit, size_t size, Py_ssize_t stride, Samples *samples);

/* Whether there is more to the last unit, which is dropped; it must be asked before the next one. */
int has_more(Decoder *decoder);

#endif
