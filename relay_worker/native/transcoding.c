/* Sound from an access unit of AAC to Opus packets that have left: media/opus.py, where the unit follows on the one before.
 *
 * The decoder is PyAV's, asked directly (avcodec.c) or as the Python asks it; libopus is called by the addresses that the
 * Python has of it. What the next unit becomes is decided before it is decoded, as a decoder cannot be asked twice. Behind
 * that the rest of the Python's way is called for whatever is not plain.
 */

#include "wake.h"

static const double PAUSE = 0.150, TOLERANCE = 0.040; /* seconds; media/opus.py */
static const double LEAST_ERROR = 0.020, AVERAGE = 0.5, INTERVAL = 30.0, MOST_BUDGET = 0.6, BUDGET_RATE = 0.01;
enum {
    FRAME_TICKS = 960,    /* of that clock: 20 ms */
    MAX_FRAMES = 16,      /* Opus packets of one unit; more are left to the Python */
    MOST_FRAME = 960 * 4, /* bytes of the samples of one, at 48 kHz */
    MOST_OPUS = 1275,     /* bytes of one (RFC 6716, 3.2) */
};

#define NUMBER_OF(object, name) (slot_of(object, f_##name)->i)
#define REAL_OF(object, name) (slot_of(object, f_##name)->r)

int
fill_transcoding(Transcoding *self, PyObject *given)
{
    static const int types[] = {STATE_TRANSCODER, STATE_SOUND_ENCODER, STATE_SOUND_CLOCK};
    if (!PyTuple_Check(given) || PyTuple_Size(given) != TRANSCODING_PARTS)
        return 0;
    for (int index = 0; index < TRANSCODING_PARTS; index++)
        self->parts[index] = Py_NewRef(PyTuple_GetItem(given, index));
    for (int index = 0; index < TRANSCODING_STATES; index++)
        if (!is_state(self->parts[index], types[index]))
            return 0;
    self->encode = (encode_function)(uintptr_t)PyLong_AsSize_t(self->parts[ENCODE]);
    self->context = (void *)(uintptr_t)PyLong_AsSize_t(self->parts[CONTEXT]);
    self->rate = PyLong_AsLong(self->parts[SAMPLE_RATE]);
    self->stride = PyLong_AsSsize_t(self->parts[STRIDE]);
    self->frame_bytes = PyLong_AsSsize_t(self->parts[FRAME_BYTES]);
    if (self->parts[DECODER] != Py_None && !fill_decoder(&self->decoder, self->parts[DECODER]))
        return 0;
    return !PyErr_Occurred() && self->encode != NULL && self->context != NULL && self->rate > 0 && self->stride > 0 &&
           self->frame_bytes > 0 && self->frame_bytes <= MOST_FRAME && self->frame_bytes % self->stride == 0;
}

void
clear_transcoding(Transcoding *self)
{
    self->encode = NULL;
    clear_decoder(&self->decoder);
    for (int index = 0; index < TRANSCODING_PARTS; index++)
        Py_CLEAR(self->parts[index]);
}

/* The bytes of samples that wait to be encoded; -1 where there is no such thing. */
static Py_ssize_t
pending_size(PyObject *pending)
{
    return pending != NULL && PyByteArray_CheckExact(pending) ? PyByteArray_Size(pending) : -1;
}

/* SoundClock.correction, where it corrects nothing and need not listen. */
static int
is_in_time(Transcoding *self, double error, double now)
{
    PyObject *clock = self->parts[SOUND_CLOCK];
    double elapsed = now - REAL_OF(clock, sound_now), weight = (0.001 > elapsed ? 0.001 : elapsed) / AVERAGE;
    double mean = REAL_OF(clock, sound_error), budget = REAL_OF(clock, sound_budget) + elapsed * BUDGET_RATE;
    mean += (error - mean) * (weight < 1.0 ? weight : 1.0);
    self->error = mean;
    self->budget = budget < MOST_BUDGET ? budget : MOST_BUDGET;
    self->settles = fabs(mean) < LEAST_ERROR;
    return self->settles || (fabs(mean) < TOLERANCE && !(now - REAL_OF(clock, sound_corrected) >= INTERVAL));
}

int
follows_on(Transcoding *self, double media, double now)
{
    PyObject *transcoder = self->parts[TRANSCODER], *chain = self->parts[CHAIN];
    Py_ssize_t pending = pending_size(ATTRIBUTE(chain, pending_samples));
    int64_t position = NUMBER_OF(chain, position);
    if (NUMBER_OF(transcoder, hole) || media < REAL_OF(transcoder, latest_media) || position == NO_NUMBER ||
        NUMBER_OF(chain, cut_bytes) || pending < 0 || pending >= self->frame_bytes)
        return 0;
    double gap = media - ((double)position / OPUS_CLOCK + (double)pending / (double)(self->stride * self->rate));
    self->pause = media - REAL_OF(transcoder, expected_media) >= PAUSE;
    return !(self->pause && gap > TOLERANCE) && is_in_time(self, gap, now);
}

/* A list of frames; NULL with an exception. */
static PyObject *
decode(Transcoding *self, const uint8_t *unit, size_t length)
{
    PyObject *bytes = PyBytes_FromStringAndSize((const char *)unit, (Py_ssize_t)length), *frames = NULL;
    PyObject *size = PyLong_FromSize_t(length);
    PyObject *packet = bytes == NULL || size == NULL ? NULL : PyObject_CallFunctionObjArgs(self->parts[PACKET], size, NULL);
    Py_XDECREF(size);
    if (packet != NULL && !call(packet, n_update, bytes, NULL))
        frames = PyObject_CallFunctionObjArgs(self->parts[DECODE], packet, NULL);
    Py_XDECREF(packet);
    Py_XDECREF(bytes);
    return frames;
}

/* An attribute that is a number; -1 where it is none. */
static Py_ssize_t
size_of(PyObject *object, int name)
{
    PyObject *value = PyObject_GetAttr(object, names[name]);
    Py_ssize_t size = value == NULL ? -1 : PyLong_AsSsize_t(value);
    Py_XDECREF(value);
    return size;
}

/* Take hold of the samples of a single frame as the chain expects it, and say how many there are; -1 where it is any other. */
static Py_ssize_t
hold_samples(const Transcoding *self, PyObject *frames, Py_buffer *samples)
{
    PyObject *frame = PyList_CheckExact(frames) && PyList_Size(frames) == 1 ? PyList_GetItem(frames, 0) : NULL;
    Py_ssize_t count = frame == NULL ? -1 : size_of(frame, n_samples);
    if (count < 0 || count > MAX_FRAMES * (self->frame_bytes / self->stride) || size_of(frame, n_sample_rate) != self->rate)
        return -1;
    PyObject *planes = PyObject_GetAttr(frame, names[n_planes]);
    int held = planes != NULL && PyTuple_CheckExact(planes) && PyTuple_Size(planes) == 1 &&
               !PyObject_GetBuffer(PyTuple_GetItem(planes, 0), samples, PyBUF_SIMPLE);
    Py_XDECREF(planes); /* the plane is kept by what is held of it */
    if (held && samples->len < count * self->stride) {
        PyBuffer_Release(samples);
        held = 0;
    }
    return held ? count : -1;
}

/* NativeEncoder.encode of what is pending and of so many bytes of samples behind it, and what is left of these. How many
 * packets: of `work`, and in `out`; -1 where libopus refuses, -2 with an exception. */
static int
encode(Transcoding *self, const uint8_t *samples, Py_ssize_t size, Work *work, uint8_t *out)
{
    double first[MOST_FRAME / sizeof(double)]; /* for its alignment */
    PyObject *pending = ATTRIBUTE(self->parts[CHAIN], pending_samples);
    Py_ssize_t waiting = pending_size(pending), all = waiting + size, used = 0;
    if (waiting < 0 || waiting >= self->frame_bytes) { /* which it was not before the decoder was called */
        PyErr_SetString(PyExc_RuntimeError, "what waits to be encoded has changed");
        return -2;
    }
    int count = (int)(all / self->frame_bytes);
    memcpy(first, PyByteArray_AsString(pending), (size_t)waiting);
    if (count && waiting) {
        used = self->frame_bytes - waiting;
        memcpy((uint8_t *)first + waiting, samples, (size_t)used);
    }
    const uint8_t *rest = samples + (count ? size - all % self->frame_bytes : 0);
    Py_ssize_t left = samples + size - rest, kept = count ? 0 : waiting;
    if (PyByteArray_Resize(pending, kept + left))
        return -2;
    memcpy(PyByteArray_AsString(pending) + kept, rest, (size_t)left);
    uint32_t filled = 0;
    for (int number = 0; number < count; number++) {
        int is_first = !number && waiting;
        const void *frame = is_first ? (const uint8_t *)first : samples + used;
        int32_t length = self->encode(self->context, frame, (int)(self->frame_bytes / self->stride), out + filled, MOST_OPUS);
        if (length < 0 || length > MOST_OPUS)
            return -1;
        work->payloads[number] = (Piece){filled, (uint32_t)length, 0};
        filled += (uint32_t)length;
        used += is_first ? 0 : self->frame_bytes;
    }
    work->payload_count = count;
    return count;
}

int
forward_sound(Wake *self, Work *work, Run *run, PyObject *material, PyObject *now, int method)
{
    PyObject *pipeline = self->parts[PIPELINE], *output = ATTRIBUTE(pipeline, output), *sound = NULL;
    if (output != NULL && is_state(output, MEDIA_OUT) && slot_of(output, f_connected)->i &&
        ATTRIBUTE(pipeline, tap) == Py_None && ATTRIBUTE(pipeline, viewers) == Py_None &&
        ATTRIBUTE(pipeline, rendition) == Py_None)
        sound = Py_XNewRef(ATTRIBUTE(output, out_sound));
    int sent = sound == NULL ? 0 : send_sound(sound, work, run, material, now);
    Py_XDECREF(sound);
    if (sent > 0)
        return set_item(ATTRIBUTE(pipeline, last_frame), self->kind, now);
    return sent < 0 ? -1 : hand_on(work, run, pipeline, method, material);
}

/* What is remembered of sound that follows on. */
static void
keep_place(Transcoding *self, double now)
{
    PyObject *clock = self->parts[SOUND_CLOCK];
    REAL_OF(clock, sound_error) = self->error;
    REAL_OF(clock, sound_budget) = self->budget;
    REAL_OF(clock, sound_now) = now;
    if (self->settles)
        REAL_OF(clock, due_since) = NAN;
}

/* _Encoder.encode of these samples, and what becomes of the packets. -1 with an exception. */
static int
take_samples(Wake *self, Work *work, const uint8_t *samples, Py_ssize_t count, double media, PyObject *now)
{
    Transcoding *with = &self->transcoding;
    PyObject *transcoder = with->parts[TRANSCODER], *chain = with->parts[CHAIN];
    uint8_t out[MAX_FRAMES * MOST_OPUS]; /* less than one is pending */
    keep_place(with, PyFloat_AsDouble(now));
    int made = encode(with, samples, count * with->stride, work, out);
    REAL_OF(transcoder, expected_media) = media + (double)count / (double)with->rate;
    if (made < 0)
        return made == -1 ? call(transcoder, n_note_unencodable, NULL, NULL) : -1;
    Run run = {.out_end = made, .step = (double)FRAME_TICKS / OPUS_CLOCK};
    run.media = (double)NUMBER_OF(chain, position) / OPUS_CLOCK;
    for (int number = 0; number < made; number++)
        run.bytes += work->payloads[number].size;
    NUMBER_OF(chain, position) += FRAME_TICKS * made;
    slot_of(self->parts[INPUT], f_sound_frames)->i += made;
    if (!made)
        return 0;
    PyObject *material = PyBytes_FromStringAndSize((const char *)out, (Py_ssize_t)run.bytes);
    int failed = material == NULL || forward_sound(self, work, &run, material, now, n__encoded);
    Py_XDECREF(material);
    return failed ? -1 : 0;
}

/* The same by the Python, of frames of any other form. */
static int
pass_frames(Wake *self, PyObject *frames, double media, PyObject *now)
{
    PyObject *at = PyFloat_FromDouble(media), *done = NULL;
    PyObject *out = at == NULL ? NULL : PyObject_GetAttr(self->parts[PIPELINE], names[n__forward]);
    if (out != NULL)
        done = PyObject_CallMethodObjArgs(self->parts[INPUT], names[n_encode], frames, at, now,
                                          self->transcoding.pause ? Py_True : Py_False, out, NULL);
    Py_XDECREF(out);
    Py_XDECREF(at);
    Py_XDECREF(done);
    return done == NULL ? -1 : 0;
}

/* A unit by PyAV, which is asked as the Python asks it. */
static int
transcode_frames(Wake *self, Work *work, const uint8_t *unit, size_t size, double media, PyObject *now)
{
    Transcoding *with = &self->transcoding;
    PyObject *frames = decode(with, unit, size);
    if (frames == NULL && PyErr_ExceptionMatches(with->parts[REFUSALS])) {
        PyErr_Clear();
        return call(with->parts[TRANSCODER], n_note_undecodable, NULL, NULL);
    }
    if (frames == NULL)
        return -1;
    Py_buffer samples;
    Py_ssize_t count = hold_samples(with, frames, &samples);
    int failed;
    if (count < 0) {
        PyErr_Clear();
        failed = pass_frames(self, frames, media, now);
    }
    else {
        failed = take_samples(self, work, samples.buf, count, media, now);
        PyBuffer_Release(&samples);
    }
    Py_DECREF(frames);
    return failed ? -1 : 0;
}

int
transcode(Wake *self, Work *work, const uint8_t *unit, size_t size, double media, PyObject *now)
{
    Transcoding *with = &self->transcoding;
    REAL_OF(with->parts[TRANSCODER], latest_media) = media;
    if (with->decoder.context == NULL)
        return transcode_frames(self, work, unit, size, media, now);
    Samples samples;
    int failed = decode_directly(&with->decoder, unit, size, with->stride, &samples);
    if (failed)
        return -1;
    int fits = samples.count <= MAX_FRAMES * (with->frame_bytes / with->stride);
    if (samples.data != NULL && fits)
        failed = take_samples(self, work, samples.data, samples.count, media, now);
    if (has_more(&with->decoder) || !fits)
        samples.refused = 1; /* the Python makes anew what it needs */
    if (!failed && samples.refused)
        failed = call(with->parts[TRANSCODER], n_note_undecodable, NULL, NULL);
    return failed ? -1 : 0;
}
