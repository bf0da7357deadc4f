/** Every bound of the product, in one place: each queue, table, message and pool has a named limit. */

/** Memory page size of the controller (CC.MPS = 0) and of DMA mappings. Bytes. */
export const PAGE_SIZE = 4096;

/** The doorbells in BAR0, and a page that shadows them. Bytes. */
export const DOORBELLS_BYTES = PAGE_SIZE;

/** I/O queue pairs a controller offers (qid 1 to 64). */
export const MAX_IO_QUEUE_PAIRS = 64;
/** Entries of an I/O queue (CAP.MQES + 1). */
export const MAX_QUEUE_ENTRIES = 4096;
/** Entries of an admin queue (AQA is 12 bits, zero-based). */
export const MAX_ADMIN_QUEUE_ENTRIES = 4096;
/** MDTS: the largest transfer is 2^MDTS pages. */
export const MDTS = 8;
/** Largest data transfer of one command. Bytes. */
export const MAX_TRANSFER_BYTES = PAGE_SIZE << MDTS;
/** Least limit of a transfer that can be set: MDTS 0 would mean that there is none (NVMe Base 2.0 figure 275). Bytes. */
export const MIN_TRANSFER_LIMIT_BYTES = 2 * PAGE_SIZE;
/** Pieces a transfer can fall into: one a page, and one more when it does not start on a page boundary. */
export const MAX_SEGMENTS = (1 << MDTS) + 1;
/** Room for them: an injected error may split one in three. */
export const SEGMENTS_CAPACITY = MAX_SEGMENTS + 2;

/** Namespaces of a subsystem (default of `max_namespaces` and its ceiling). */
export const DEFAULT_NAMESPACES = 32;
export const MAX_NAMESPACES = 256;
/** Asynchronous Event Requests a controller holds (AERL + 1). */
export const MAX_ASYNC_EVENT_REQUESTS = 4;
/** Abort commands a controller has under way (ACL + 1). */
export const MAX_ABORTS = 4;
/** Admin commands of a controller that wait for reactors, the most there can be of use: to create or delete each of its queues. */
export const MAX_ADMIN_COMMANDS = 2 * MAX_IO_QUEUE_PAIRS;
/** Entries of the error log page. */
export const MAX_ERROR_LOG_ENTRIES = 64;

/** DMA regions of one client; and those with memory behind them of the process, which the kernel allows 65530 mappings. */
export const MAX_CLIENT_REGIONS = 8192;
export const MAX_REGIONS = 32768;
/** Of these, as many as a reactor gets to know in one message. */
export const REGIONS_PER_MESSAGE = 64;
/** IOVAs are exact as JavaScript numbers below this. Bytes. */
export const MAX_IOVA = Number.MAX_SAFE_INTEGER;

/** Messages by which one client's memory is reached that are not answered, and as many that wait; data bytes of those sent. */
export const MAX_DMA_MESSAGES = 256;
export const MAX_DMA_BYTES = 1024 * 1024;
/**
 * What the replies to those sent may take of the client's socket buffer, which has 212,992 bytes where nobody raised it: QEMU 11.1 loses its device
 * when a reply does not fit. Bytes, as the kernel counts them.
 */
export const MAX_DMA_REPLY_BYTES = 192 * 1024;
/** How long a client may take to answer one: it is given up then. Milliseconds. */
export const DMA_MESSAGE_PATIENCE_MS = 5000;
/** A controller whose host's memory is reached by messages: I/O commands taken and not completed, and entries fetched by one message. */
export const MAX_REMOTE_COMMANDS = 512;
export const MAX_REMOTE_FETCH = 64;
/** Its messages under way at a time, and the least that its client must take in one (bytes): a page is not cut up. */
export const MAX_REMOTE_MESSAGES = 64;
export const MIN_REMOTE_MESSAGE_BYTES = PAGE_SIZE;
/** Memory of ours for the data of its commands, in parts that one page of PRP entries describes. */
export const REMOTE_PART_PAGES = PAGE_SIZE / 8;
export const REMOTE_PARTS = 4;
/** Entries of the admin queues that stand for its own, and admin commands taken and not completed. */
export const REMOTE_ADMIN_ENTRIES = 512;
export const MAX_REMOTE_ADMIN_COMMANDS = 256;

/** Reactors of one process. */
export const MAX_REACTORS = 64;
/** Bdevs of one process. */
export const MAX_BDEVS = 1024;
/** Namespaces of connected controllers whose I/O is counted (a controller has one row more); those beyond are served, but not counted. */
export const MAX_COUNTER_ROWS = 4096;
/** Files a reactor has registered with its ring: one a bdev, and those of bdevs that are gone but for a request that hangs. */
export const MAX_REGISTERED_FILES = 2 * MAX_BDEVS;
/** Requests a reactor has in flight at backends that complete later: its slots. */
export const MAX_INFLIGHT = 8192;
/** Operations that backends of a reactor have under way beside requests: reads and writes of connections, polls. */
export const MAX_RING_TAGS = 4096;
/** Of the requests, those of one user of one bdev: so many at most, and so many in any case (fewer where there are more than 64 users). */
export const MAX_SHARE_INFLIGHT = 512;
export const GUARANTEED_INFLIGHT = 64;
/** Requests of one owner that wait before they hold a slot: each has room in a completion queue, of which there are no more. */
export const MAX_PARKED = MAX_IO_QUEUE_PAIRS * MAX_QUEUE_ENTRIES;
/** 32-bit words of a command that a plane may have the request layer keep: an SQE. */
export const COMMAND_WORDS = 16;
/** Ranges of one discard: those of a Dataset Management command (NVM Command Set 1.0 §3.2.3). */
export const MAX_RANGES = 256;
/**
 * What a request that takes long does at a time, before others have their turn: blocks that are zeroed or discarded by one call, and the data
 * of others. Bytes.
 */
export const MAX_ZEROED_BYTES = 256 * 1024 * 1024;
export const MAX_ZEROED_MEMORY_BYTES = 16 * 1024 * 1024;
export const MAX_STEP_BYTES = 64 * 1024;
/** Writes of one bdev that nobody waits for any more, each with the range that it keeps from others. */
export const MAX_STALE_WRITES = 64;
/** Descriptors of a Scatter Gather List, those of its segments together: no list is followed for longer. */
export const MAX_SGL_DESCRIPTORS = 1024;
/** Copy: bytes of one source range (MSSRL) and of a command (MCL); reads of other bdevs that copies to one have under way at a time. */
export const MAX_COPY_RANGE_BYTES = 8 * 1024 * 1024;
export const MAX_COPY_BYTES = 64 * 1024 * 1024;
export const MAX_FOREIGN_READS = 8;
/** Ranges of blocks of one disk that hosts have marked uncorrectable; and changes of them that are asked for at a time. */
export const MAX_UNCORRECTABLE_RANGES = 1024;
export const MAX_UNCORRECTABLE_ASKED = 64;
/** Reads and writes under way at a file whose file system may block: each holds a thread of the kernel. */
export const MAX_BLOCKING_OPS = 8;
/** Threads of the kernel that a ring may have for what blocks: those of every bdev, one more for its sync, one for writes in order. */
export const MAX_KERNEL_WORKERS = MAX_BDEVS * (MAX_BLOCKING_OPS + 2);
/** Messages of main that a reactor carries out between two looks at its queues. */
export const MAX_MESSAGES_PER_ROUND = 8;

/** Calls on file systems and descriptors that may wait for ever, each on a thread of its own: of one owner (a bdev, a client) at the same time. */
export const MAX_OWNER_CALLS = 4;
/** Of the process: one for each owner that has none yet, and besides, for all owners together, so many more. */
export const MAX_BLOCKING_CALLS = MAX_BDEVS + 512;
export const MAX_FURTHER_CALLS = 256;

/** Times that a client may unmask INTx by its eventfd in a period of so many ms; what comes beyond counts as one, when the period is over. */
export const MAX_UNMASKS = 200;
export const UNMASK_PERIOD_MS = 10;

/** Descriptors that a VMM sent and that are not closed yet: from so many on, its messages are not read. Its end may add those it has in use. */
export const MAX_PENDING_CLOSES = 256;
/** Descriptors that one thread closes, one after the other. */
export const MAX_CLOSE_BATCH = 16;
/** Descriptors that came with messages which wait to be carried out. A message more may come with as many as one can. */
export const MAX_KEPT_DESCRIPTORS = 64;
/** Descriptors beyond what the process may have otherwise: for what comes with a message, so that the kernel closes none of it itself. */
export const DESCRIPTOR_RESERVE = 256;

/** JSON-RPC: bytes of one request, and clients at the same time (as SPDK). */
export const MAX_RPC_REQUEST_BYTES = 256 * 1024;
export const MAX_RPC_CLIENTS = 64;
/** HTTP: connections at the same time. */
export const MAX_HTTP_CONNECTIONS = 128;
/** How long a client of either may take to send a request that it has begun, or to read an answer, before it counts as idle. Milliseconds. */
export const CLIENT_STALL_MS = 10_000;
/** The answers of a batch: past this many no further request of it is carried out. */
export const MAX_RPC_BATCH_ANSWER_BYTES = 4 * 1024 * 1024;
