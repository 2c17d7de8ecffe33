/* Sends a pcap of Ethernet frames from an interface: as fast as it can, or at a given rate, for a
 * given time, over and over. Each time around, the addresses differ, so that no stream comes twice.
 *
 * replay INTERFACE FILE SECONDS [PACKETS_A_SECOND]; prints "packets seconds".
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <linux/if_packet.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

enum { BATCH = 64, LONGEST = 65536 };

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec / 1e9;
}

/* One octet of both addresses, which makes another network of them. */
static void renumber(uint8_t *frame, uint32_t length, uint8_t add) {
    uint16_t type = (uint16_t)(frame[12] << 8 | frame[13]);
    if (type == 0x0800 && length >= 34) frame[27] += add, frame[31] += add;
    if (type == 0x86DD && length >= 54) frame[23] += add, frame[39] += add;
}

int main(int argc, char **argv) {
    if (argc < 4) return fprintf(stderr, "replay INTERFACE FILE SECONDS [RATE]\n"), 2;
    double rate = argc > 4 ? atof(argv[4]) : 0, seconds = atof(argv[3]);
    FILE *file = fopen(argv[2], "rb");
    if (!file) return perror(argv[2]), 1;
    fseek(file, 0, SEEK_END);
    size_t size = (size_t)ftell(file);
    uint8_t *octets = malloc(size);
    rewind(file);
    if (fread(octets, 1, size, file) != size) return perror(argv[2]), 1;

    size_t count = 0, room = 1 << 20;
    struct iovec *frames = malloc(room * sizeof *frames);
    for (size_t at = 24; at + 16 <= size;) {
        uint32_t length;
        memcpy(&length, octets + at + 8, 4);
        if (length > LONGEST || at + 16 + length > size) break;
        if (count == room) frames = realloc(frames, (room *= 2) * sizeof *frames);
        frames[count++] = (struct iovec){octets + at + 16, length};
        at += 16 + length;
    }
    int sender = socket(AF_PACKET, SOCK_RAW, 0), one = 1;
    struct sockaddr_ll to = {.sll_family = AF_PACKET, .sll_ifindex = (int)if_nametoindex(argv[1])};
    if (sender < 0 || bind(sender, (void *)&to, sizeof to)) return perror(argv[1]), 1;
    setsockopt(sender, SOL_PACKET, PACKET_QDISC_BYPASS, &one, sizeof one);

    struct mmsghdr batch[BATCH];
    memset(batch, 0, sizeof batch);
    uint64_t sent = 0;
    double begin = now(), t = begin;
    for (size_t next = 0; t - begin < seconds; t = now()) {
        if (rate > 0 && sent > rate * (t - begin)) {
            nanosleep(&(struct timespec){.tv_nsec = 200000}, NULL);
            continue;
        }
        unsigned n = 0;
        for (; n < BATCH && next + n < count; n++) {
            renumber(frames[next + n].iov_base, (uint32_t)frames[next + n].iov_len, 1);
            batch[n].msg_hdr = (struct msghdr){.msg_iov = &frames[next + n], .msg_iovlen = 1};
        }
        for (unsigned done = 0; done < n;) {
            int went = sendmmsg(sender, batch + done, n - done, 0);
            if (went < 0 && errno != ENOBUFS && errno != EAGAIN) return perror("sendmmsg"), 1;
            if (went > 0) done += (unsigned)went;
        }
        sent += n;
        next = next + n == count ? 0 : next + n;
    }
    printf("%llu %.3f\n", (unsigned long long)sent, t - begin);
    return 0;
}
