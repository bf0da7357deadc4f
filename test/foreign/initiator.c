/*
 * An NVMe initiator over vfio-user in one file of C and libc. It sends what SPDK's host library sends, and was written from the
 * specifications, not from this project's code, so that a mistake the project makes on both its sides is seen here.
 *
 *   initiator SOCKET verify [QUEUE_PAIRS [ROUNDS]]
 *   initiator SOCKET perf DEPTH SECONDS [read|write [BYTES]]
 *
 * `verify` writes a pattern over the first namespace (at most 64 MiB of it), flushes, reads it back in other pieces, and prints a line a
 * round. `perf` prints its figures as JSON. Exit status 0, or 1 with a message on stderr.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define PAGE 4096u
#define MAX_TRANSFER (128u << 10)
#define MAX_PAIRS 8u
/* Entries of a queue, at most. */
#define MAX_ENTRIES 1024u
#define VERIFY_DEPTH 32u
#define VERIFY_BYTES (64ull << 20)
/* What memory holds that the device must leave alone. */
#define GUARD 0xeeu
/* Seconds for any one step; SIGALRM ends what takes longer. */
#define PATIENCE 60u

static const char *step = "starting";

__attribute__((noreturn, format(printf, 1, 2))) static void fail(const char *format, ...)
{
	va_list arguments;

	fprintf(stderr, "initiator: %s: ", step);
	va_start(arguments, format);
	vfprintf(stderr, format, arguments);
	va_end(arguments);
	fputc('\n', stderr);
	exit(1);
}

static void on_alarm(int signal)
{
	dprintf(STDERR_FILENO, "initiator: %s: no progress in %u s (signal %d)\n", step, PATIENCE, signal);
	_exit(1);
}

static void begin(const char *name)
{
	step = name;
	alarm(PATIENCE);
}

/* ---- vfio-user ---- */

enum { VERSION = 1, DMA_MAP, DMA_UNMAP, GET_INFO, GET_REGION_INFO, REGION_READ = 9, REGION_WRITE };
enum { TYPE_MASK = 0xf, TYPE_REPLY = 1, ERROR = 0x20 };
enum { BAR0 = 0, CONFIG = 7, MAX_FDS = 8, MAX_MAPS = 16, REGION_MMAP = 4, REGION_CAPS = 8, SPARSE_MMAP = 1 };

struct header { uint16_t id, command; uint32_t size, flags, error; };
static struct { struct header header; uint8_t payload[4096]; } message;

struct dma_map { uint32_t argsz, flags; uint64_t offset, address, size; };
struct dma_unmap { uint32_t argsz, flags; uint64_t address, size; };
struct device_info { uint32_t argsz, flags, regions, irqs; };
struct region_info { uint32_t argsz, flags, index, cap_offset; uint64_t size, offset; };
struct capability { uint16_t id, version; uint32_t next, areas, reserved; };
struct area { uint64_t offset, size; };
struct access { uint64_t offset; uint32_t region, count; uint64_t data; };

static int server = -1, memory = -1, fds[MAX_FDS], fd_count;
static uint64_t memory_size;
static struct dma_map maps[MAX_MAPS];
static unsigned map_count;
static uint8_t *doorbells;
static uint64_t doorbells_size;

/* Sends `length` bytes at `payload` and a descriptor unless it is -1. Leaves the reply in `message`, its descriptors in `fds`. */
static void transact(uint16_t command, const void *payload, size_t length, size_t reply_length, int fd)
{
	union {
		struct cmsghdr header;
		char space[CMSG_SPACE(sizeof fds)];
	} control = { 0 };
	struct iovec part = { &message, sizeof message.header + length };
	struct msghdr carrier = { .msg_iov = &part, .msg_iovlen = 1 };
	struct cmsghdr *attached;
	ssize_t got;

	message.header = (struct header){ .command = command, .size = part.iov_len };
	memcpy(message.payload, payload, length);
	if (fd >= 0) {
		control.header = (struct cmsghdr){ CMSG_LEN(sizeof fd), SOL_SOCKET, SCM_RIGHTS };
		memcpy(CMSG_DATA(&control.header), &fd, sizeof fd);
		carrier.msg_control = &control;
		carrier.msg_controllen = CMSG_SPACE(sizeof fd);
	}
	if (sendmsg(server, &carrier, MSG_NOSIGNAL) != (ssize_t)part.iov_len)
		fail("cannot send command %u: %s", command, strerror(errno));

	/* The header with the descriptors, then all the rest by one read. */
	part.iov_len = sizeof message.header;
	carrier.msg_control = &control;
	carrier.msg_controllen = sizeof control;
	got = recvmsg(server, &carrier, 0);
	if (got != (ssize_t)sizeof message.header || (carrier.msg_flags & (MSG_TRUNC | MSG_CTRUNC)))
		fail("the reply to command %u has a header of %zd bytes", command, got);
	fd_count = 0;
	for (attached = CMSG_FIRSTHDR(&carrier); attached; attached = CMSG_NXTHDR(&carrier, attached)) {
		fd_count = (attached->cmsg_len - CMSG_LEN(0)) / sizeof(int);
		memcpy(fds, CMSG_DATA(attached), fd_count * sizeof(int));
	}
	if (message.header.flags & ERROR)
		fail("command %u was refused: %s", command, strerror(message.header.error));
	if (message.header.id != 0 || message.header.command != command || (message.header.flags & TYPE_MASK) != TYPE_REPLY)
		fail("command %u was answered by message %u to command %u, flags %#x", command, message.header.id,
		     message.header.command, message.header.flags);
	length = message.header.size - sizeof message.header;
	if (message.header.size < sizeof message.header || length > reply_length)
		fail("the reply to command %u has %u bytes", command, message.header.size);
	if (length > 0 && (got = read(server, message.payload, length)) != (ssize_t)length)
		fail("the reply to command %u came in pieces: %zd of %zu bytes", command, got, length);
}

static uint64_t region_access(uint16_t command, uint32_t region, uint64_t offset, uint32_t width, uint64_t value)
{
	struct access access = { offset, region, width, value };
	size_t head = offsetof(struct access, data);

	transact(command, &access, command == REGION_WRITE ? head + width : head, head + width, -1);
	memcpy(&access, message.payload, head + width);
	if (access.offset != offset || access.region != region || access.count != width)
		fail("access to %#lx of region %u was answered for %#lx of %u, %u bytes", (long)offset, region,
		     (long)access.offset, access.region, access.count);
	return width == 8 ? access.data : access.data & ((1ull << 8 * width) - 1);
}

static uint64_t get(uint64_t offset, uint32_t width)
{
	return region_access(REGION_READ, BAR0, offset, width, 0);
}

static void set(uint64_t offset, uint32_t width, uint64_t value)
{
	region_access(REGION_WRITE, BAR0, offset, width, value);
}

/* Maps what may be mapped of a region: a descriptor is due for each area. */
static void map_region(const struct region_info *info)
{
	uint32_t at = info->flags & REGION_CAPS ? info->cap_offset : 0;
	struct capability cap;
	struct area area;

	for (; at != 0; at = cap.next) {
		if (at < sizeof *info || at > sizeof message.payload - sizeof cap - MAX_FDS * sizeof area)
			fail("region %u has a capability at %u", info->index, at);
		memcpy(&cap, message.payload + at, sizeof cap);
		if (cap.id != SPARSE_MMAP)
			continue;
		if (cap.areas != (uint32_t)fd_count)
			fail("region %u has %u areas and %d descriptors", info->index, cap.areas, fd_count);
		for (uint32_t i = 0; i < cap.areas; i++) {
			memcpy(&area, message.payload + at + sizeof cap + i * sizeof area, sizeof area);
			void *mapped = mmap(NULL, area.size, PROT_READ | PROT_WRITE, MAP_SHARED, fds[i], info->offset + area.offset);
			if (mapped == MAP_FAILED)
				fail("cannot map area %u of region %u: %s", i, info->index, strerror(errno));
			if (info->index == BAR0 && area.offset == 0x1000 && area.size >= 0x1000) {
				doorbells = mapped;
				doorbells_size = area.size;
			}
		}
	}
}

static void attach(const char *path)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	uint16_t version[2] = { 0, 1 };
	struct device_info device = { .argsz = sizeof device };

	begin("connecting");
	if (strlen(path) >= sizeof address.sun_path)
		fail("the path is too long");
	strcpy(address.sun_path, path);
	server = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (server < 0 || connect(server, (struct sockaddr *)&address, sizeof address) < 0)
		fail("%s: %s", path, strerror(errno));

	begin("attaching");
	transact(VERSION, version, sizeof version, sizeof message.payload, -1);
	memcpy(version, message.payload, sizeof version);
	if (version[0] != 0 || version[1] > 1)
		fail("the server speaks version %u.%u", version[0], version[1]);
	transact(GET_INFO, &device, sizeof device, sizeof device, -1);
	memcpy(&device, message.payload, sizeof device);
	for (uint32_t index = 0; index < device.regions; index++) {
		/* The library's question is as long as the answer it can take. */
		uint8_t question[4096 - sizeof(struct region_info)] = { 0 };
		struct region_info info = { .argsz = sizeof question, .index = index };

		memcpy(question, &info, sizeof info);
		transact(GET_REGION_INFO, question, sizeof question, sizeof message.payload, -1);
		memcpy(&info, message.payload, sizeof info);
		if (info.index != index || info.argsz > sizeof question)
			fail("region %u was described as region %u in %u bytes", index, info.index, info.argsz);
		if (info.size > 0 && (info.flags & REGION_MMAP))
			map_region(&info);
		for (int i = 0; i < fd_count; i++)
			close(fds[i]);
	}
	if (doorbells == NULL)
		fail("the doorbells cannot be mapped");
}

/* Memory that the device can reach, at the same address as this process. */
static void *allocate(uint64_t size)
{
	struct dma_map map = { .argsz = sizeof map, .flags = 3, .offset = memory_size };

	map.size = (size + PAGE - 1) & ~(uint64_t)(PAGE - 1);
	memory_size += map.size;
	if (map_count == MAX_MAPS || ftruncate(memory, memory_size) < 0)
		fail("no memory left");
	void *mapped = mmap(NULL, map.size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, memory, map.offset);
	if (mapped == MAP_FAILED)
		fail("cannot map memory: %s", strerror(errno));
	map.address = (uintptr_t)mapped;
	transact(DMA_MAP, &map, sizeof map, 0, memory);
	maps[map_count++] = map;
	return mapped;
}

static void detach(void)
{
	begin("detaching");
	while (map_count > 0) {
		struct dma_map *map = &maps[--map_count];
		struct dma_unmap unmap = { .argsz = sizeof unmap, .address = map->address, .size = map->size };

		transact(DMA_UNMAP, &unmap, sizeof unmap, sizeof unmap, memory);
	}
	close(server);
}

/* ---- NVMe queues ---- */

enum { CAP = 0x0, VS = 0x8, CC = 0x14, CSTS = 0x1c, AQA = 0x24, ASQ = 0x28, ACQ = 0x30 };
enum { DELETE_SQ = 0, CREATE_SQ, DELETE_CQ = 4, CREATE_CQ, IDENTIFY, SET_FEATURES = 9, ASYNC_EVENT = 12 };
enum { FLUSH = 0, WRITE, READ };
enum { ADMIN_ENTRIES = 32, EVENT_CID = ADMIN_ENTRIES - 1 };

struct command {
	uint8_t opcode, flags;
	uint16_t cid;
	uint32_t nsid;
	uint64_t reserved, metadata, prp1, prp2;
	uint32_t cdw10, cdw11, cdw12, cdw13, cdw14, cdw15;
};
struct completion { uint32_t result, reserved; uint16_t sq_head, sqid, cid, status; };
_Static_assert(sizeof(struct command) == 64 && sizeof(struct completion) == 16, "as NVMe has them");

struct pair {
	struct command *sq;
	struct completion *cq;
	uint32_t *sq_doorbell, *cq_doorbell;
	uint32_t id, entries, tail, head, phase;
	bool busy[MAX_ENTRIES];
};

/* The admin queues are pair 0. */
static struct pair pairs[MAX_PAIRS + 1];
static uint32_t pair_count, doorbell_stride, nsid, block_size, max_transfer = MAX_TRANSFER;
static uint64_t block_count;

static void make_pair(struct pair *pair, uint32_t id, uint32_t entries)
{
	uint8_t *rings = allocate(MAX_ENTRIES * (sizeof(struct command) + sizeof(struct completion)));
	uint64_t doorbell = 2ull * id * doorbell_stride;

	if (doorbell + 2 * doorbell_stride > doorbells_size)
		fail("no doorbells for queue %u", id);
	*pair = (struct pair){ .id = id, .entries = entries, .phase = 1 };
	pair->sq = (struct command *)rings;
	pair->cq = (struct completion *)(rings + MAX_ENTRIES * sizeof(struct command));
	pair->sq_doorbell = (uint32_t *)(doorbells + doorbell);
	pair->cq_doorbell = (uint32_t *)(doorbells + doorbell + doorbell_stride);
}

/* Puts a command into the queue; its doorbell is the caller's. */
static void submit(struct pair *pair, const struct command *command)
{
	pair->busy[command->cid] = true;
	pair->sq[pair->tail] = *command;
	pair->tail = pair->tail + 1 == pair->entries ? 0 : pair->tail + 1;
}

/* Takes a completion if one is there. It stays valid until its doorbell is rung, which is the caller's. */
static const struct completion *reap(struct pair *pair)
{
	const struct completion *done = &pair->cq[pair->head];

	if ((__atomic_load_n(&done->status, __ATOMIC_ACQUIRE) & 1) != pair->phase)
		return NULL;
	if (done->sqid != pair->id || done->sq_head >= pair->entries || done->cid >= MAX_ENTRIES || !pair->busy[done->cid])
		fail("queue %u has a completion of command %u, queue %u, head %u", pair->id, done->cid, done->sqid, done->sq_head);
	pair->busy[done->cid] = false;
	if (++pair->head == pair->entries) {
		pair->head = 0;
		pair->phase ^= 1;
	}
	return done;
}

static void ring(uint32_t *doorbell, uint32_t value)
{
	__atomic_store_n(doorbell, value, __ATOMIC_RELEASE);
}

/* Runs one command on a queue that has no other than the event request. Returns the completion's first word. */
static uint32_t execute(struct pair *pair, const struct command *command)
{
	const struct completion *done;
	uint32_t result;
	uint16_t cid, status;

	submit(pair, command);
	ring(pair->sq_doorbell, pair->tail);
	do {
		while ((done = reap(pair)) == NULL)
			sched_yield();
		result = done->result;
		cid = done->cid;
		status = done->status >> 1;
		ring(pair->cq_doorbell, pair->head);
	} while (cid != command->cid);
	if (status != 0)
		fail("opcode %#x of queue %u ended with status %#x", command->opcode, pair->id, status);
	return result;
}

/* ---- NVMe controller ---- */

static void identify(uint32_t cns, uint32_t of, void *data)
{
	memset(data, 0, PAGE);
	execute(pairs, &(struct command){ .opcode = IDENTIFY, .nsid = of, .prp1 = (uintptr_t)data, .cdw10 = cns });
}

static void wait_status(uint32_t mask, uint32_t value)
{
	uint32_t status;

	while (((status = get(CSTS, 4)) & mask) != value)
		if (status & 2)
			fail("the controller failed: CSTS %#x", status);
}

static void enable(void)
{
	uint64_t cap = get(CAP, 8);
	uint32_t cc = get(CC, 4), command;

	begin("enabling the controller");
	command = region_access(REGION_READ, CONFIG, 4, 2, 0);
	region_access(REGION_WRITE, CONFIG, 4, 2, command | 0x404);
	doorbell_stride = 4u << (cap >> 32 & 0xf);
	if (get(VS, 4) < 0x10000 || (cap >> 48 & 0xf) != 0 || (cap & 0xffff) + 1 < MAX_ENTRIES)
		fail("cannot work with CAP %#llx", (unsigned long long)cap);
	if (cc & 1)
		set(CC, 4, cc & ~1u);
	wait_status(1, 0);
	make_pair(pairs, 0, ADMIN_ENTRIES);
	set(ASQ, 8, (uintptr_t)pairs->sq);
	set(ACQ, 8, (uintptr_t)pairs->cq);
	set(AQA, 4, (ADMIN_ENTRIES - 1) << 16 | (ADMIN_ENTRIES - 1));
	set(CC, 4, 4 << 20 | 6 << 16 | 1);
	wait_status(1, 1);
}

/* Learns what there is, and prints it. */
static void inquire(uint32_t wanted)
{
	uint8_t *data = allocate(PAGE);
	uint32_t queues, mdts;

	begin("identifying");
	identify(1, 0, data);
	mdts = data[77];
	if (mdts != 0 && mdts < 5)
		max_transfer = PAGE << mdts;
	fprintf(stderr, "controller \"%.40s\", serial \"%.20s\", firmware \"%.8s\"\n", data + 24, data + 4, data + 64);
	/* As many as possible; the answer is zero-based, as the question. */
	queues = execute(pairs, &(struct command){ .opcode = SET_FEATURES, .cdw10 = 7, .cdw11 = 0x3ff03ff });
	if ((queues & 0xffff) + 1 < wanted || (queues >> 16) + 1 < wanted)
		fail("there are no %u queue pairs: %#x", wanted, queues);
	execute(pairs, &(struct command){ .opcode = SET_FEATURES, .cdw10 = 11, .cdw11 = 0x100 });
	submit(pairs, &(struct command){ .opcode = ASYNC_EVENT, .cid = EVENT_CID });
	identify(2, 0, data);
	memcpy(&nsid, data, sizeof nsid);
	if (nsid == 0)
		fail("there is no namespace");
	identify(0, nsid, data);
	memcpy(&block_count, data, sizeof block_count);
	block_size = 1u << data[128 + 4 * (data[26] & 0xf) + 2];
	if (block_count == 0 || block_size < 512 || block_size > PAGE)
		fail("namespace %u has %llu blocks of %u bytes", nsid, (unsigned long long)block_count, block_size);
	fprintf(stderr, "namespace %u: %llu blocks of %u bytes\n", nsid, (unsigned long long)block_count, block_size);
	identify(3, nsid, data);
}

static void open_pairs(uint32_t count, uint32_t entries)
{
	begin("creating queues");
	while (pair_count < count) {
		struct pair *pair = &pairs[++pair_count];
		uint32_t shape = (entries - 1) << 16 | pair_count;

		make_pair(pair, pair_count, entries);
		execute(pairs, &(struct command){
			.opcode = CREATE_CQ, .prp1 = (uintptr_t)pair->cq, .cdw10 = shape, .cdw11 = 1 });
		execute(pairs, &(struct command){
			.opcode = CREATE_SQ, .prp1 = (uintptr_t)pair->sq, .cdw10 = shape, .cdw11 = pair_count << 16 | 1 });
	}
}

static void shut_down(void)
{
	begin("shutting down");
	for (; pair_count > 0; pair_count--) {
		execute(pairs, &(struct command){ .opcode = DELETE_SQ, .cdw10 = pair_count });
		execute(pairs, &(struct command){ .opcode = DELETE_CQ, .cdw10 = pair_count });
	}
	set(CC, 4, (get(CC, 4) & ~0xc000u) | 0x4000);
	wait_status(0xc, 0x8);
	detach();
}

/* ---- Transfers ---- */

/* A transfer, with pages for it and, after them, one for its PRP list. The data starts at `offset` of the first page. */
struct slot { uint8_t *pages; uint64_t lba; uint32_t bytes, offset; };

/* Pages of a slot, and how far apart successive ones are, so that data need not be contiguous. */
static uint32_t slot_pages, page_step;
static struct slot *slots;

static void make_slots(uint32_t count, uint32_t pages, uint32_t apart)
{
	uint8_t *at = allocate((uint64_t)count * (pages + 1) * PAGE);

	slot_pages = pages;
	page_step = apart;
	if ((slots = calloc(count, sizeof *slots)) == NULL)
		fail("no memory left");
	for (uint32_t i = 0; i < count; i++, at += (pages + 1) * PAGE)
		slots[i].pages = at;
}

/* The byte at a place counted from the start of the slot's first page; what follows in that page is contiguous. */
static uint8_t *place(const struct slot *slot, uint32_t at)
{
	return slot->pages + (uint64_t)(at / PAGE * page_step % slot_pages) * PAGE + at % PAGE;
}

static struct command transfer(uint8_t opcode, uint16_t cid, const struct slot *slot)
{
	uint32_t pages = (slot->offset + slot->bytes + PAGE - 1) / PAGE;
	uint64_t *list = (uint64_t *)(slot->pages + (size_t)slot_pages * PAGE);
	struct command command = { .opcode = opcode, .cid = cid, .nsid = nsid };

	command.prp1 = (uintptr_t)place(slot, slot->offset);
	for (uint32_t i = 1; i < pages; i++)
		list[i - 1] = (uintptr_t)place(slot, i * PAGE);
	if (pages == 2)
		command.prp2 = list[0];
	else if (pages > 2)
		command.prp2 = (uintptr_t)list;
	command.cdw10 = (uint32_t)slot->lba;
	command.cdw11 = (uint32_t)(slot->lba >> 32);
	command.cdw12 = slot->bytes / block_size - 1;
	return command;
}

static uint32_t random_state = 1;

static uint32_t next_random(void)
{
	random_state ^= random_state << 13;
	random_state ^= random_state >> 17;
	return random_state ^= random_state << 5;
}

/* ---- verify ---- */

/* What the namespace holds at a 4-byte word. */
static uint32_t pattern(uint32_t seed, uint64_t word)
{
	uint32_t x = (uint32_t)(word * 0x9e3779b1u) ^ (uint32_t)(word >> 32) ^ seed;

	x = (x ^ x >> 16) * 0x85ebca6bu;
	x = (x ^ x >> 13) * 0xc2b2ae35u;
	return x ^ x >> 16;
}

/* The pass over the first blocks of the namespace that is under way. */
static struct pass { uint8_t opcode; uint32_t seed; uint64_t next, end; } pass;

static struct slot *slot_of(const struct pair *pair, uint32_t cid)
{
	return &slots[(pair->id - 1) * VERIFY_DEPTH + cid];
}

/* Submits the next piece, of random length and at a random place in its first page. False if nothing is left. */
static bool advance(struct pair *pair, uint16_t cid)
{
	struct slot *slot = slot_of(pair, cid);
	uint64_t blocks = 1 + next_random() % (max_transfer / block_size);
	struct command command;

	if (pass.next == pass.end)
		return false;
	slot->lba = pass.next;
	slot->bytes = (uint32_t)(blocks < pass.end - pass.next ? blocks : pass.end - pass.next) * block_size;
	slot->offset = next_random() % 2 ? 0 : next_random() % PAGE & ~3u;
	memset(slot->pages, GUARD, (size_t)slot_pages * PAGE);
	for (uint32_t at = 0; pass.opcode == WRITE && at < slot->bytes; at += 4)
		*(uint32_t *)place(slot, slot->offset + at) = pattern(pass.seed, (slot->lba * block_size + at) / 4);
	pass.next += slot->bytes / block_size;
	command = transfer(pass.opcode, cid, slot);
	submit(pair, &command);
	return true;
}

/* All pages of the slot: the data, and around it what was there before. */
static void compare(const struct slot *slot)
{
	for (uint32_t at = 0; at < slot_pages * PAGE; at += 4) {
		/* Huge before the data's start. */
		uint32_t in = at - slot->offset;
		uint32_t found = *(const uint32_t *)place(slot, at), expected = GUARD * 0x01010101u;

		if (in < slot->bytes)
			expected = pattern(pass.seed, (slot->lba * block_size + in) / 4);
		if (found != expected)
			fail("%u bytes of block %llu, to offset %u of a page: at %d is %#x, not %#x (seed %#x)", slot->bytes,
			     (unsigned long long)slot->lba, slot->offset, (int)in, found, expected, pass.seed);
	}
}

/* Keeps all queues full until the pass is over. */
static void run_pass(uint8_t opcode, uint32_t seed, uint64_t end)
{
	const struct completion *done;
	uint32_t running = 0;

	pass = (struct pass){ opcode, seed, 0, end };
	for (uint16_t cid = 0; cid < VERIFY_DEPTH; cid++)
		for (uint32_t id = 1; id <= pair_count; id++)
			running += advance(&pairs[id], cid);
	for (uint32_t id = 1; id <= pair_count; id++)
		ring(pairs[id].sq_doorbell, pairs[id].tail);
	for (uint32_t id = 1; running > 0; id = id % pair_count + 1) {
		struct pair *pair = &pairs[id];
		uint32_t head = pair->head;

		while ((done = reap(pair)) != NULL) {
			if (done->status >> 1 != 0)
				fail("block %llu ended with status %#x", (unsigned long long)slot_of(pair, done->cid)->lba, done->status >> 1);
			if (opcode == READ)
				compare(slot_of(pair, done->cid));
			running = running - 1 + advance(pair, done->cid);
		}
		if (pair->head != head) {
			ring(pair->cq_doorbell, pair->head);
			ring(pair->sq_doorbell, pair->tail);
		} else {
			sched_yield();
		}
	}
}

static void verify(uint32_t count, uint32_t rounds)
{
	uint32_t seed = (uint32_t)time(NULL) * 1000003u ^ (uint32_t)getpid();
	uint64_t end;

	inquire(count);
	open_pairs(count, VERIFY_DEPTH + 1);
	make_slots(count * VERIFY_DEPTH, MAX_TRANSFER / PAGE + 1, 5);
	end = block_count * block_size < VERIFY_BYTES ? block_count : VERIFY_BYTES / block_size;
	random_state = seed | 1;
	for (uint32_t round = 1; round <= rounds; round++) {
		begin("writing");
		run_pass(WRITE, seed + round, end);
		begin("flushing");
		execute(&pairs[1], &(struct command){ .opcode = FLUSH, .nsid = nsid });
		begin("reading");
		run_pass(READ, seed + round, end);
		printf("round %u: %llu bytes verified\n", round, (unsigned long long)end * block_size);
		fflush(stdout);
	}
}

/* ---- perf ---- */

static double now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return (double)time.tv_sec + (double)time.tv_nsec * 1e-9;
}

/* Keeps `depth` commands in flight at random places for a while. Returns the commands a second. */
static double load(struct pair *pair, struct command *commands, uint32_t depth, uint64_t places, double seconds)
{
	const struct completion *done;
	double start = now(), end = start;
	uint64_t count = 0;
	uint32_t running = 0;

	for (; running < depth; running++)
		submit(pair, &commands[running]);
	ring(pair->sq_doorbell, pair->tail);
	for (uint32_t polls = 1; running > 0; polls++) {
		uint32_t taken = 0;

		while (taken < depth && (done = reap(pair)) != NULL) {
			struct command *command = &commands[done->cid];

			if (done->status >> 1 != 0)
				fail("block %u ended with status %#x", command->cdw10, done->status >> 1);
			taken++;
			if (end - start >= seconds) {
				running--;
				continue;
			}
			command->cdw10 = (uint32_t)((uint64_t)next_random() * places >> 32) * (command->cdw12 + 1);
			submit(pair, command);
			count++;
		}
		if (taken > 0) {
			ring(pair->cq_doorbell, pair->head);
			ring(pair->sq_doorbell, pair->tail);
		}
		if (polls % 256 == 0 && end - start < seconds)
			end = now();
	}
	return (double)count / (end - start);
}

static void perf(uint32_t depth, double seconds, uint8_t opcode, uint32_t bytes)
{
	struct command commands[MAX_ENTRIES];
	uint64_t places;
	double iops;

	inquire(1);
	if (bytes == 0 || bytes % block_size != 0 || bytes > max_transfer || block_count * block_size < bytes)
		fail("cannot transfer %u bytes", bytes);
	places = (block_count < UINT32_MAX ? block_count : UINT32_MAX) / (bytes / block_size);
	open_pairs(1, MAX_ENTRIES);
	make_slots(depth, (bytes + PAGE - 1) / PAGE, 1);
	for (uint32_t cid = 0; cid < depth; cid++) {
		slots[cid].bytes = bytes;
		commands[cid] = transfer(opcode, cid, &slots[cid]);
	}
	begin("measuring");
	load(&pairs[1], commands, depth, places, 0.2);
	alarm(PATIENCE + (unsigned)seconds);
	iops = load(&pairs[1], commands, depth, places, seconds);
	printf("{\"op\":\"%s\",\"bytes\":%u,\"depth\":%u,\"seconds\":%g,\"iops\":%.0f}\n",
	       opcode == READ ? "read" : "write", bytes, depth, seconds, iops);
}

/* ---- The command line ---- */

/* The argument at an index as a number, or what it is if not given. */
static double number(int count, char **arguments, int index, double otherwise, double least, double most)
{
	char *rest;
	double value = index < count ? strtod(arguments[index], &rest) : otherwise;

	if (index < count && (*rest != '\0' || !(value >= least && value <= most)))
		fail("%s is not a number from %g to %g", arguments[index], least, most);
	return value;
}

int main(int count, char **arguments)
{
	const char *mode = count > 2 ? arguments[2] : "", *op = count > 5 ? arguments[5] : "read";
	bool writes = strcmp(op, "write") == 0, loads = strcmp(mode, "perf") == 0 && count > 4;
	uint32_t first = (uint32_t)number(count, arguments, 3, 1, 1, loads ? MAX_ENTRIES - 1 : MAX_PAIRS);
	double second = number(count, arguments, 4, 1, loads ? 0.1 : 1, 1e6);
	uint32_t bytes = (uint32_t)number(count, arguments, 6, PAGE, 512, MAX_TRANSFER);

	if ((!loads && strcmp(mode, "verify") != 0) || (!writes && strcmp(op, "read") != 0))
		fail("arguments: SOCKET verify [QUEUE_PAIRS [ROUNDS]], or SOCKET perf DEPTH SECONDS [read|write [BYTES]]");
	signal(SIGALRM, on_alarm);
	memory = memfd_create("initiator", MFD_CLOEXEC);
	attach(arguments[1]);
	enable();
	if (loads)
		perf(first, second, writes ? WRITE : READ, bytes);
	else
		verify(first, (uint32_t)second);
	shut_down();
	return 0;
}
