/* What services/capture/decode.py and flows.py do, in C: the yardstick of bench/decode.py.
 * Usage: decode CAPTURE ROUNDS. Prints the nanoseconds a packet of each round, one a line.
 * Reads pcap in this machine's byte order, Ethernet; the file is in memory before the clock starts. */
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>

enum { DECODED, UNSUPPORTED, MALFORMED, FRAGMENT };
enum { BATCH = 16384, MOST_FLOWS = 1 << 16, EMPTY = -1, NO_FLOW = -1 };

typedef struct { int64_t timestamp, offset; int32_t captured, original, link; } frame_t;
typedef struct {
    int64_t timestamp, payload_offset, stream;
    int32_t payload_length, captured_length, missing, flow;
    uint32_t sequence, acknowledgement;
    uint16_t source_port, destination_port;
    uint8_t protocol, tcp_flags, direction, status;
} packet_t;
typedef struct {
    uint64_t lower_high, lower_low, higher_high, higher_low, ports;
    int64_t last_timestamp, stream, packets[2], octets[2];
    uint8_t closed, used;
} flow_t;

static int32_t slots[2 * MOST_FLOWS];
static flow_t flows[MOST_FLOWS];
static int64_t used, opened;

static inline uint16_t u16(const uint8_t *o) { return (uint16_t)(o[0] << 8 | o[1]); }
static inline uint32_t u32(const uint8_t *o) {
    return (uint32_t)o[0] << 24 | (uint32_t)o[1] << 16 | (uint32_t)o[2] << 8 | o[3];
}
static inline uint64_t u64(const uint8_t *o) { return (uint64_t)u32(o) << 32 | u32(o + 4); }
static inline uint64_t mix(uint64_t state, uint64_t word) {
    state = (state ^ word) * 0x9E3779B97F4A7C15ull;
    return state ^ state >> 32;
}

static inline int64_t find_or_add(uint64_t lh, uint64_t ll, uint64_t hh, uint64_t hl, uint64_t ports,
                                  int64_t now) {
    uint64_t state = mix(mix(0x243F6A8885A308D3ull, lh), ll);
    state = mix(mix(mix(state, hh), hl), ports);
    for (uint64_t slot = state & (2 * MOST_FLOWS - 1);; slot = (slot + 1) & (2 * MOST_FLOWS - 1)) {
        int32_t number = slots[slot];
        if (number == EMPTY) {
            if (used == MOST_FLOWS) return NO_FLOW;
            slots[slot] = (int32_t)used;
            flows[used] = (flow_t){lh, ll, hh, hl, ports, now, 0, {0, 0}, {0, 0}, 0, 1};
            return used++;
        }
        flow_t *f = &flows[number];
        if (f->ports == ports && f->lower_low == ll && f->higher_low == hl && f->lower_high == lh &&
            f->higher_high == hh)
            return number;
    }
}

static int decode(const uint8_t *octets, const frame_t *frame, packet_t *packet) {
    int64_t p = frame->offset, end = p + frame->captured;
    packet->timestamp = frame->timestamp;
    packet->captured_length = frame->captured;
    packet->stream = 0;
    if (p + 14 > end) return MALFORMED;
    uint16_t ethertype = u16(octets + p + 12);
    p += 14;
    for (int tags = 0; tags < 3 && (ethertype == 0x8100 || ethertype == 0x88A8 || ethertype == 0x9100);
         tags++) {
        if (p + 4 > end) break;
        ethertype = u16(octets + p + 2);
        p += 4;
    }
    uint64_t sh = 0, sl, dh = 0, dl;
    int protocol;
    int64_t payload, payload_end;
    if (ethertype == 0x0800) {
        if (p + 20 > end) return MALFORMED;
        int header = (octets[p] & 15) * 4, total = u16(octets + p + 2);
        payload = p + header;
        if (octets[p] >> 4 != 4 || header < 20 || payload > end) return MALFORMED;
        if (total == 0) payload_end = end;
        else if (total < header) return MALFORMED;
        else payload_end = p + total;
        if (u16(octets + p + 6) & 0x3FFF) return FRAGMENT;
        protocol = octets[p + 9];
        sl = 0xFFFFull << 32 | u32(octets + p + 12);
        dl = 0xFFFFull << 32 | u32(octets + p + 16);
    } else if (ethertype == 0x86DD) {
        if (p + 40 > end) return MALFORMED;
        int length = u16(octets + p + 4);
        payload = p + 40;
        payload_end = length ? payload + length : end;
        protocol = octets[p + 6];
        for (int n = 0; n < 8 && (protocol == 0 || protocol == 43 || protocol == 60); n++) {
            if (payload + 8 > end) return MALFORMED;
            protocol = octets[payload];
            payload += (octets[payload + 1] + 1) * 8;
        }
        if (payload > end) return MALFORMED;
        sh = u64(octets + p + 8); sl = u64(octets + p + 16);
        dh = u64(octets + p + 24); dl = u64(octets + p + 32);
    } else return UNSUPPORTED;
    packet->missing = payload_end > end ? (int32_t)(payload_end - end) : 0;
    if (payload_end > end) payload_end = end;
    const uint8_t *t = octets + payload;
    if (protocol == 6) {
        int header;
        if (payload + 20 > payload_end) return MALFORMED;
        header = (t[12] >> 4) * 4;
        if (header < 20 || payload + header > payload_end) return MALFORMED;
        packet->sequence = u32(t + 4);
        packet->acknowledgement = u32(t + 8);
        packet->tcp_flags = t[13];
        packet->payload_offset = payload + header;
    } else if (protocol == 17) {
        if (payload + 8 > payload_end) return MALFORMED;
        packet->sequence = packet->acknowledgement = packet->tcp_flags = 0;
        packet->payload_offset = payload + 8;
    } else return UNSUPPORTED;
    uint64_t sp = packet->source_port = u16(t), dp = packet->destination_port = u16(t + 2);
    packet->payload_length = (int32_t)(payload_end - packet->payload_offset);
    packet->protocol = (uint8_t)protocol;
    int swap = sh != dh ? sh > dh : sl != dl ? sl > dl : sp > dp;
    uint64_t ports = (uint64_t)protocol << 32 | (swap ? dp << 16 | sp : sp << 16 | dp);
    int64_t number = swap ? find_or_add(dh, dl, sh, sl, ports, packet->timestamp)
                          : find_or_add(sh, sl, dh, dl, ports, packet->timestamp);
    packet->flow = (int32_t)number;
    packet->direction = (uint8_t)swap;
    if (number != NO_FLOW && protocol == 17) {
        flow_t *f = &flows[number];
        if (!f->stream) f->stream = ++opened;
        f->last_timestamp = packet->timestamp;
        f->packets[swap]++;
        f->octets[swap] += frame->captured;
        packet->stream = f->stream;
    }
    return DECODED;
}

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

int main(int count, char **arguments) {
    struct stat status;
    if (count != 3) return 2;
    int file = open(arguments[1], O_RDONLY);
    if (file < 0 || fstat(file, &status) < 0) { perror(arguments[1]); return 1; }
    uint8_t *octets = mmap(NULL, (size_t)status.st_size, PROT_READ, MAP_PRIVATE | MAP_POPULATE, file, 0);
    if (octets == MAP_FAILED) { perror("mmap"); return 1; }
    int64_t total = 0, size = status.st_size;
    frame_t *frames = malloc((size_t)(size / 16) * sizeof *frames);
    packet_t *packets = calloc(BATCH, sizeof *packets);
    for (int64_t p = 24; p + 16 <= size;) {
        uint32_t r[4];
        memcpy(r, octets + p, 16);
        if (p + 16 + r[2] > size) break;
        frames[total++] = (frame_t){r[0] * 1000000000ll + r[1] * 1000ll, p + 16, (int32_t)r[2], (int32_t)r[3], 1};
        p += 16 + r[2];
    }
    for (int round = 0; round < atoi(arguments[2]); round++) {
        memset(slots, 0xFF, sizeof slots);
        used = 0;
        double spent = 0;
        for (int64_t first = 0; first < total; first += BATCH) {
            int64_t last = first + BATCH < total ? first + BATCH : total;
            double start = now();
            for (int64_t row = first; row < last; row++) {
                packet_t *packet = &packets[row - first];
                int state = decode(octets, &frames[row], packet);
                packet->status = (uint8_t)state;
                if (state != DECODED) {
                    packet->protocol = 0;
                    packet->payload_length = 0;
                    packet->flow = NO_FLOW;
                }
            }
            spent += now() - start;
        }
        printf("%.2f\n", spent * 1e9 / (double)total);
    }
    fprintf(stderr, "%lld packets, %lld flows\n", (long long)total, (long long)used);
    return 0;
}
