/* Payloads of a plain wake: parts of what came, or cut anew into bytes of their own. */

#include "wake.h"

/* Payloads from here on are copied: those of this wake so far, and room for all that may come. */
int
begin_cut(Work *work)
{
    size_t all = work->size + work->carried, room = (size_t)I(max_payload) - 2;
    work->cut_size = all + 2 * (all / room + 2 * MAX_PACKETS) + MOST_SETS;
    work->cut = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)work->cut_size);
    if (work->cut == NULL)
        return 0;
    uint8_t *to = (uint8_t *)PyBytes_AsString(work->cut);
    for (int index = 0; index < work->payload_count; index++) {
        Piece *payload = &work->payloads[index];
        if (payload->size > work->cut_size - work->cut_used)
            return 0;
        memcpy(to + work->cut_used, work->data + payload->offset, payload->size);
        payload->offset = (uint32_t)work->cut_used;
        work->cut_used += payload->size;
    }
    return 1;
}

/* A payload of `head` and `tail`, which is copied; without a head and while nothing was cut, it stays where it is. */
int
emit_payload(Work *work, const uint8_t *head, size_t head_size, const uint8_t *tail, size_t tail_size, int marker)
{
    if (work->payload_count == MAX_PAYLOADS)
        return 0;
    Piece *payload = &work->payloads[work->payload_count++];
    payload->size = (uint32_t)(head_size + tail_size);
    payload->marker = marker;
    if (work->cut == NULL) {
        payload->offset = (uint32_t)(tail - work->data);
        return !head_size;
    }
    if (payload->size > work->cut_size - work->cut_used)
        return 0;
    payload->offset = (uint32_t)work->cut_used;
    uint8_t *to = (uint8_t *)PyBytes_AsString(work->cut) + work->cut_used;
    if (head_size)
        memcpy(to, head, head_size);
    memcpy(to + head_size, tail, tail_size);
    work->cut_used += payload->size;
    return 1;
}

/* H264Passthrough._recut, of a fragment that is not empty: so something is left for the last packet. */
int
recut(Work *work, const uint8_t *data, size_t size, int ends)
{
    if (work->cut == NULL && !begin_cut(work))
        return 0;
    uint8_t head[MOST_PAYLOAD];
    size_t room = (size_t)I(max_payload) - 2;
    if (work->carried > room || 2 + room > sizeof head)
        return 0;
    work->carry_changed = 1;
    head[0] = (uint8_t)((I(header) & 0xE0) | FU_A);
    while (work->carried + size > room) {
        size_t part = room - work->carried;
        head[1] = (uint8_t)((I(header) & 0x1F) | I(carry_start));
        memcpy(head + 2, work->carry, work->carried);
        if (!emit_payload(work, head, 2 + work->carried, data, part, 0))
            return 0;
        I(carry_start) = 0;
        work->carried = 0;
        data += part;
        size -= part;
    }
    if (!ends) {
        memcpy(work->carry + work->carried, data, size);
        work->carried += size;
        work->has_carry = 1;
        return 1;
    }
    head[1] = (uint8_t)((I(header) & 0x1F) | I(carry_start) | FU_END);
    memcpy(head + 2, work->carry, work->carried);
    if (!emit_payload(work, head, 2 + work->carried, data, size, 0))
        return 0;
    work->carried = 0;
    work->has_carry = 0;
    return 1;
}

/* NalUnits._put */
int
put_nal(Work *work, const uint8_t *nal, size_t size)
{
    if (size <= (size_t)I(max_payload))
        return emit_payload(work, NULL, 0, nal, size, 0);
    if (work->cut == NULL && !begin_cut(work))
        return 0;
    size_t room = (size_t)I(max_payload) - 2;
    uint8_t head[2] = {(uint8_t)((nal[0] & 0xE0) | FU_A), (uint8_t)((nal[0] & 0x1F) | FU_START)};
    for (size_t at = 1; at < size; at += room) {
        size_t part = size - at < room ? size - at : room;
        if (part == size - at)
            head[1] |= FU_END;
        if (!emit_payload(work, head, 2, nal + at, part, 0))
            return 0;
        head[1] = nal[0] & 0x1F;
    }
    return 1;
}
