// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
// Two guests in one process, on one core: a generator and sink of frames for a vhost-user switch, by DPDK's virtio-user.
//
// It sends Ethernet/IPv4/UDP frames of one size from one guest to the other, as fast as the ring takes them or at a rate, for
// a number of slices of time, and prints one line of JSON: received Mpps of each slice, what was lost, frames that were not
// what was sent (with touch=1, which writes and compares whole frames), and latencies (with rate=).
//
// With vni= the second guest is another host: what goes to it is in VXLAN, from 172.16.0.1 to its 172.16.0.2, and so is what it
// sends. The switch's MAC address there is learned by ARP.
//
// After EAL's own arguments and "--" come words of the form name=value; see `word` below.
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include <rte_arp.h>
#include <rte_cycles.h>
#include <rte_eal.h>
#include <rte_ethdev.h>
#include <rte_ether.h>
#include <rte_ip.h>
#include <rte_mbuf.h>
#include <rte_udp.h>

enum { OUTER = 14 + 20 + 8 + 8, VXLAN_PORT = 4789 };
enum { BURST = 32, BYTES_MAX = 2048, HEADERS = 14 + 20 + 8, RING = 1024, SLICES_MAX = 1000 };
enum { BUCKETS = 20000, BUCKET_NS = 50, THREADS_MAX = 16, FLOW_PORTS = 60000, FLOW_PORT = 1024, FRESH_PORT = 30000, FEW = 10000 };

static struct {
	unsigned size, flows, slices, slice_ms, rate, touch, fresh, back, vni, before, pause_s;
	char mac[2][32], address[2][32], to_mac[32], to_address[32];
} set = {
	.size = 64, .flows = 1, .slices = 10, .slice_ms = 100,
	.mac = {"02:00:00:00:00:01", "02:00:00:00:00:02"}, .address = {"10.0.0.1", "10.0.0.2"},
};
static int boosted[THREADS_MAX], boosted_count;
static uint8_t frame[2][BYTES_MAX];
// The outer headers of what the other host sends, and its ends of the underlay: the switch's, its own.
static uint8_t outer[OUTER];
static const char *const underlay[2] = {"172.16.0.1", "172.16.0.2"};
static struct rte_ether_addr switch_mac;
static int met;
static struct rte_mempool *sending[2], *receiving;
static uint64_t sent, received, wrong, latency[BUCKETS];
static uint64_t flow_next;

static int word(const char *text)
{
	struct { const char *name; unsigned *number; } numbers[] = {
		{"size=", &set.size}, {"flows=", &set.flows}, {"slices=", &set.slices}, {"slice_ms=", &set.slice_ms},
		{"rate=", &set.rate}, {"touch=", &set.touch}, {"fresh=", &set.fresh}, {"back=", &set.back},
		{"vni=", &set.vni}, {"before=", &set.before}, {"pause_s=", &set.pause_s},
	};
	for (unsigned i = 0; i < RTE_DIM(numbers); i++) {
		size_t length = strlen(numbers[i].name);
		if (!strncmp(text, numbers[i].name, length)) {
			*numbers[i].number = strtoul(text + length, NULL, 10);
			return 0;
		}
	}
	if (sscanf(text, "to_mac=%31s", set.to_mac) == 1 || sscanf(text, "to_address=%31s", set.to_address) == 1)
		return 0;
	if (boosted_count < THREADS_MAX && sscanf(text, "boost=%d", &boosted[boosted_count]) == 1)
		return boosted_count++, 0;
	return fprintf(stderr, "generator: %s: not a word that it knows\n", text), -1;
}

// The measured threads run before everything else on the machine while it is measured. Of a thread of SCHED_RR that never sleeps
// the kernel takes up to 50 ms of each second for others: of a thousand frames a second fifty would wait for that. With few
// frames the switch is first among equals therefore, and the generator leaves its own processor to the others.
static void first(int on)
{
	struct sched_param priority = {.sched_priority = on ? 1 : 0};
	int policy = on ? SCHED_RR : SCHED_OTHER, few = set.rate && set.rate <= FEW;

	if (!few)
		sched_setscheduler(0, policy, &priority);
	for (int i = 0; i < boosted_count; i++) {
		if (few)
			setpriority(PRIO_PROCESS, boosted[i], on ? -20 : 0);
		else
			sched_setscheduler(boosted[i], policy, &priority);
	}
}

static uint32_t address_of(const char *text)
{
	unsigned a = 0, b = 0, c = 0, d = 0;
	sscanf(text, "%u.%u.%u.%u", &a, &b, &c, &d);
	return rte_cpu_to_be_32(a << 24 | b << 16 | c << 8 | d);
}

static void frame_make(unsigned from)
{
	struct rte_ether_hdr *link = (void *)frame[from];
	struct rte_ipv4_hdr *ip = (void *)(link + 1);
	struct rte_udp_hdr *udp = (void *)(ip + 1);
	const char *to_mac = from == 0 && set.to_mac[0] ? set.to_mac : set.mac[!from];
	const char *to = from == 0 && set.to_address[0] ? set.to_address : set.address[!from];

	for (unsigned i = 0; i < set.size; i++)
		frame[from][i] = i * 7 + 1;
	memset(frame[from], 0, HEADERS);
	rte_ether_unformat_addr(to_mac, &link->dst_addr);
	rte_ether_unformat_addr(set.mac[from], &link->src_addr);
	link->ether_type = rte_cpu_to_be_16(RTE_ETHER_TYPE_IPV4);
	ip->version_ihl = 0x45;
	ip->total_length = rte_cpu_to_be_16(set.size - sizeof *link);
	ip->time_to_live = 64;
	ip->next_proto_id = IPPROTO_UDP;
	ip->src_addr = address_of(set.address[from]);
	ip->dst_addr = address_of(to);
	ip->hdr_checksum = rte_ipv4_cksum(ip);
	udp->src_port = udp->dst_port = rte_cpu_to_be_16(FLOW_PORT);
	udp->dgram_len = rte_cpu_to_be_16(set.size - sizeof *link - sizeof *ip);
}

// Bytes in front of a port's frames.
static unsigned outside(unsigned port)
{
	return set.vni && port == 1 ? OUTER : 0;
}

static void outer_make(void)
{
	struct rte_ether_hdr *link = (void *)outer;
	struct rte_ipv4_hdr *ip = (void *)(link + 1);
	struct rte_udp_hdr *udp = (void *)(ip + 1);
	uint32_t *vxlan = (void *)(udp + 1);

	link->dst_addr = switch_mac;
	rte_ether_unformat_addr(set.mac[1], &link->src_addr);
	link->ether_type = rte_cpu_to_be_16(RTE_ETHER_TYPE_IPV4);
	ip->version_ihl = 0x45;
	ip->total_length = rte_cpu_to_be_16(OUTER - sizeof *link + set.size);
	ip->fragment_offset = rte_cpu_to_be_16(0x4000);
	ip->time_to_live = 64;
	ip->next_proto_id = IPPROTO_UDP;
	ip->src_addr = address_of(underlay[1]);
	ip->dst_addr = address_of(underlay[0]);
	ip->hdr_checksum = 0;
	ip->hdr_checksum = rte_ipv4_cksum(ip);
	udp->src_port = rte_cpu_to_be_16(50000);
	udp->dst_port = rte_cpu_to_be_16(VXLAN_PORT);
	udp->dgram_len = rte_cpu_to_be_16(OUTER - sizeof *link - sizeof *ip + set.size);
	vxlan[0] = rte_cpu_to_be_32(0x08000000);
	vxlan[1] = rte_cpu_to_be_32(set.vni << 8);
}

// Says who the other host is, and asks for the switch's MAC address.
static void arp_ask(void)
{
	struct rte_mbuf *mbuf = rte_pktmbuf_alloc(receiving);
	struct rte_ether_hdr *link;
	struct rte_arp_hdr *arp;

	if (!mbuf)
		return;
	link = (void *)rte_pktmbuf_append(mbuf, 60);
	arp = (void *)(link + 1);
	memset(link, 0, 60);
	memset(&link->dst_addr, 0xff, sizeof link->dst_addr);
	rte_ether_unformat_addr(set.mac[1], &link->src_addr);
	link->ether_type = rte_cpu_to_be_16(RTE_ETHER_TYPE_ARP);
	arp->arp_hardware = rte_cpu_to_be_16(RTE_ARP_HRD_ETHER);
	arp->arp_protocol = rte_cpu_to_be_16(RTE_ETHER_TYPE_IPV4);
	arp->arp_hlen = 6;
	arp->arp_plen = 4;
	arp->arp_opcode = rte_cpu_to_be_16(RTE_ARP_OP_REQUEST);
	arp->arp_data.arp_sha = link->src_addr;
	arp->arp_data.arp_sip = address_of(underlay[1]);
	arp->arp_data.arp_tip = address_of(underlay[0]);
	if (!rte_eth_tx_burst(1, 0, &mbuf, 1))
		rte_pktmbuf_free(mbuf);
}

static void arp_hear(const uint8_t *bytes, unsigned length)
{
	const struct rte_ether_hdr *link = (const void *)bytes;
	const struct rte_arp_hdr *arp = (const void *)(link + 1);

	if (length < sizeof *link + sizeof *arp || link->ether_type != rte_cpu_to_be_16(RTE_ETHER_TYPE_ARP))
		return;
	if (arp->arp_opcode == rte_cpu_to_be_16(RTE_ARP_OP_REPLY) && arp->arp_data.arp_sip == address_of(underlay[0])) {
		switch_mac = arp->arp_data.arp_sha;
		met = 1;
	}
}

static void buffer_fill(struct rte_mempool *pool, void *from, void *object, unsigned index)
{
	struct rte_mbuf *mbuf = object;

	RTE_SET_USED(pool);
	RTE_SET_USED(index);
	mbuf->data_off = RTE_PKTMBUF_HEADROOM;
	memcpy(rte_pktmbuf_mtod(mbuf, uint8_t *), outer, outside((uintptr_t)from));
	memcpy(rte_pktmbuf_mtod(mbuf, uint8_t *) + outside((uintptr_t)from), frame[(uintptr_t)from], set.size);
}

static void prepare(struct rte_mbuf *mbuf, unsigned from)
{
	uint8_t *bytes;

	mbuf->data_off = RTE_PKTMBUF_HEADROOM;
	mbuf->data_len = mbuf->pkt_len = set.size + outside(from);
	mbuf->nb_segs = 1;
	mbuf->next = NULL;
	mbuf->ol_flags = 0;
	rte_mbuf_refcnt_set(mbuf, 1);
	bytes = rte_pktmbuf_mtod(mbuf, uint8_t *) + outside(from);
	if (set.touch)
		memcpy(bytes, frame[from], set.size);
	if (set.flows > 1 || set.fresh) {
		struct rte_udp_hdr *udp = (void *)(bytes + 34);
		uint64_t flow = set.fresh ? flow_next++ : flow_next++ % set.flows;
		udp->src_port = rte_cpu_to_be_16(FLOW_PORT + flow % FLOW_PORTS);
		// New flows are none that were sent before, by this run or another one.
		udp->dst_port = rte_cpu_to_be_16((set.fresh ? FRESH_PORT : FLOW_PORT) + flow / FLOW_PORTS);
	}
	if (set.rate)
		*(uint64_t *)(bytes + HEADERS) = rte_rdtsc();
}

static void take(unsigned port, int count)
{
	struct rte_mbuf *burst[BURST];
	unsigned got = rte_eth_rx_burst(port, 0, burst, BURST);

	for (unsigned i = 0; i < got; i++) {
		uint8_t *bytes = rte_pktmbuf_mtod(burst[i], uint8_t *) + outside(port);
		const uint8_t *wanted = frame[!port];
		// The source's last four bytes and the length: neither routing nor bridging changes its destination's order of layers.
		int ours = burst[i]->pkt_len == set.size + outside(port) && !memcmp(bytes + 26, wanted + 26, 4);
		// Another host also gets what is for its VNI alone, and ARP.
		if (ours && outside(port))
			ours = !memcmp(bytes - 8, outer + OUTER - 8, 8);
		if (!ours && outside(port))
			arp_hear(bytes - OUTER, burst[i]->pkt_len);
		if (ours && set.touch)
			ours = !memcmp(bytes + HEADERS, wanted + HEADERS, set.size - HEADERS);
		received += ours;
		// What a switch says of itself to another host is none of the load.
		wrong += !ours && !outside(port);
		if (ours && set.rate && count) {
			uint64_t ticks = rte_rdtsc() - *(uint64_t *)(bytes + HEADERS);
			uint64_t bucket = ticks * 1000000000 / rte_get_tsc_hz() / BUCKET_NS;
			latency[RTE_MIN(bucket, (uint64_t)BUCKETS - 1)]++;
		}
	}
	if (got)
		rte_pktmbuf_free_bulk(burst, got);
}

// Sends from one guest for so long, and takes what comes to both.
static void run(unsigned from, double seconds, unsigned rate, unsigned burst_max, int count)
{
	static struct rte_mbuf *burst[BURST];
	unsigned have = 0, done = 0;
	uint64_t hz = rte_get_tsc_hz(), start = rte_rdtsc(), end = start + seconds * hz, now, last = start, paid = 0;

	while ((now = rte_rdtsc()) < end) {
		// What was not sent while others had this core is not sent all at once.
		if (now - last > hz / 1000)
			start += now - last;
		last = now;
		if (done == have) {
			unsigned wanted = burst_max;
			have = done = 0;
			if (rate) {
				uint64_t owed = (double)(now - start) * rate / hz;
				wanted = owed > paid ? RTE_MIN(owed - paid, (uint64_t)burst_max) : 0;
				paid += wanted;
			}
			if (wanted && !rte_mempool_get_bulk(sending[from], (void **)burst, wanted)) {
				have = wanted;
				for (unsigned i = 0; i < have; i++)
					prepare(burst[i], from);
			}
		}
		if (done < have) {
			unsigned gone = rte_eth_tx_burst(from, 0, burst + done, have - done);
			done += gone;
			sent += gone;
		}
		take(0, count);
		take(1, count);
	}
	if (done < have)
		rte_mempool_put_bulk(sending[from], (void **)(burst + done), have - done);
}

static int open_port(unsigned port)
{
	struct rte_eth_conf plain = {0};

	return rte_eth_dev_configure(port, 1, 1, &plain) || rte_eth_rx_queue_setup(port, 0, RING, SOCKET_ID_ANY, NULL, receiving) ||
	       rte_eth_tx_queue_setup(port, 0, RING, SOCKET_ID_ANY, NULL) || rte_eth_dev_start(port);
}

static double percentile(double share)
{
	uint64_t all = 0, seen = 0;

	for (unsigned i = 0; i < BUCKETS; i++)
		all += latency[i];
	for (unsigned i = 0; i < BUCKETS; i++)
		if ((seen += latency[i]) >= share * all)
			return (i + 1) * BUCKET_NS / 1000.0;
	return 0;
}

int main(int argc, char **argv)
{
	int used = rte_eal_init(argc, argv);
	double rates[SLICES_MAX];
	uint64_t sent_before, received_before;

	if (used < 0)
		return 1;
	for (int i = used + 1; i < argc; i++)
		if (word(argv[i]))
			return 2;
	if (set.size < HEADERS + 8 || set.size > 1518 || !set.slices || set.slices > SLICES_MAX || !set.flows)
		return fprintf(stderr, "generator: expected size= 50 to 1518, slices= 1 to %d, flows= 1 or more\n", SLICES_MAX), 2;
	receiving = rte_pktmbuf_pool_create("receiving", 16383, 256, 0, RTE_MBUF_DEFAULT_BUF_SIZE, SOCKET_ID_ANY);
	for (unsigned port = 0; port < 2; port++) {
		frame_make(port);
		sending[port] = rte_pktmbuf_pool_create(port ? "sending1" : "sending0", 8191, 256, 0, RTE_MBUF_DEFAULT_BUF_SIZE,
							SOCKET_ID_ANY);
		if (!receiving || !sending[port] || open_port(port))
			return fprintf(stderr, "generator: port %u: cannot be opened\n", port), 1;
		rte_mempool_obj_iter(sending[port], buffer_fill, (void *)(uintptr_t)port);
	}
	for (int tries = 0, up = 0; up < 2; tries++) {
		struct rte_eth_link link[2];
		for (unsigned port = up = 0; port < 2; port++)
			up += !rte_eth_link_get_nowait(port, &link[port]) && link[port].link_status;
		if (up < 2 && tries == 200)
			return fprintf(stderr, "generator: the switch did not come within 20 s\n"), 1;
		usleep(up < 2 ? 100000 : 300000);
	}
	for (int tries = 0; set.vni && !met; tries++) {
		if (tries == 200)
			return fprintf(stderr, "generator: the switch did not answer ARP within 2 s\n"), 1;
		arp_ask();
		usleep(10000);
		take(1, 0);
	}
	if (set.vni) {
		outer_make();
		rte_mempool_obj_iter(sending[1], buffer_fill, (void *)(uintptr_t)1);
	}
	// A learning switch must have seen both guests, and a stateful one an answer.
	for (unsigned i = 0; i < 100; i++) {
		unsigned fresh = set.fresh, flows = set.flows;
		set.fresh = 0, set.flows = 1;
		run(0, 20e-6, 0, 4, 0);
		if (!set.to_mac[0])
			run(1, 20e-6, 0, 4, 0);
		usleep(5000);
		set.fresh = fresh, set.flows = flows;
	}
	flow_next = 0;
	// So many new flows that are not measured, and time in which they are forgotten again: what is measured then comes to a switch that
	// has had as many before.
	while (flow_next < set.before)
		run(set.back, 1e-3, 0, BURST, 0);
	sleep(set.pause_s);
	first(1);
	// Every flow is known before it is measured.
	if (!set.fresh)
		run(set.back, set.flows > 100000 ? set.flows * 2e-6 : 0.2, 0, BURST, 0);
	// What filled the rings then has waited in them: it is no frame that is sent now and then.
	if (set.rate)
		run(set.back, 5e-3, 1, 1, 0);
	sent_before = sent, received_before = received, wrong = 0;
	for (unsigned slice = 0; slice < set.slices; slice++) {
		uint64_t start = rte_rdtsc(), before = received;
		run(set.back, set.slice_ms / 1000.0, set.rate, set.rate ? 4 : BURST, 1);
		rates[slice] = (received - before) / ((double)(rte_rdtsc() - start) / rte_get_tsc_hz()) / 1e6;
	}
	sent_before = sent - sent_before;
	run(set.back, 2e-3, 1, 1, 0);
	first(0);
	received_before = received - received_before;
	printf("{\"mpps\":[");
	for (unsigned slice = 0; slice < set.slices; slice++)
		printf("%s%.4f", slice ? "," : "", rates[slice]);
	printf("],\"sent\":%lu,\"received\":%lu,\"wrong\":%lu", sent_before, received_before, wrong);
	if (set.rate)
		printf(",\"p50_us\":%.2f,\"p99_us\":%.2f", percentile(0.5), percentile(0.99));
	printf("}\n");
	fflush(stdout);
	for (unsigned port = 0; port < 2; port++) {
		rte_eth_dev_stop(port);
		rte_eth_dev_close(port);
	}
	return rte_eal_cleanup();
}
