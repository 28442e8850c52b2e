// Runs a kernel's blocks one after another, and the threads of a block as fibers of one thread of the processor.
//
// A fiber runs until it ends or waits: at a barrier or for the lanes of its warp. The order in which fibers and blocks get their turn
// is the caller's: what depends on it is a race. Whatever goes wrong (a barrier that not all reach, memory that is not an argument's,
// an index out of an array, a division by zero, a loop without end) ends the launch through siglongjmp, and the process lives on.

#include <csetjmp>
#include <csignal>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <pthread.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <vector>

#if !(defined(__x86_64__) || defined(__aarch64__)) && !defined(WITH_UCONTEXT)
#define WITH_UCONTEXT
#endif
#ifdef WITH_UCONTEXT
#include <ucontext.h>
#endif
#ifdef __SSE__
#include <xmmintrin.h>
#endif

namespace {

struct Three {
    unsigned x, y, z;
};
struct Place {
    Three thread, block, threads, blocks;
};
struct Lane {
    alignas(16) char bytes[32];
};

// ---- fibers ----

constexpr std::size_t PAGE = 1 << 12, STACK = 1 << 17;

#ifdef WITH_UCONTEXT
using Context = ucontext_t;
void change(Context* from, Context* to) { swapcontext(from, to); }
void prepare(Context* fiber, char* stack, void (*body)()) {
    getcontext(fiber);
    fiber->uc_stack.ss_sp = stack;
    fiber->uc_stack.ss_size = STACK;
    fiber->uc_link = nullptr;
    makecontext(fiber, body, 0);
}
#else
using Context = void*;  // the stack pointer; what a function must leave as it was lies on the stack
extern "C" void host_switch(Context* from, Context to);
#if defined(__x86_64__)
asm(R"(
.text
.globl host_switch
.hidden host_switch
.type host_switch, @function
host_switch:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
.size host_switch, .-host_switch
)");
constexpr int SAVED = 6, RETURN = 6, SPARE = 2;  // words: the saved ones, the place of the return address, and above it
#else
asm(R"(
.text
.globl host_switch
.hidden host_switch
.type host_switch, %function
host_switch:
    sub sp, sp, #160
    stp x19, x20, [sp, #0]
    stp x21, x22, [sp, #16]
    stp x23, x24, [sp, #32]
    stp x25, x26, [sp, #48]
    stp x27, x28, [sp, #64]
    stp x29, x30, [sp, #80]
    stp d8, d9, [sp, #96]
    stp d10, d11, [sp, #112]
    stp d12, d13, [sp, #128]
    stp d14, d15, [sp, #144]
    mov x9, sp
    str x9, [x0]
    mov sp, x1
    ldp x19, x20, [sp, #0]
    ldp x21, x22, [sp, #16]
    ldp x23, x24, [sp, #32]
    ldp x25, x26, [sp, #48]
    ldp x27, x28, [sp, #64]
    ldp x29, x30, [sp, #80]
    ldp d8, d9, [sp, #96]
    ldp d10, d11, [sp, #112]
    ldp d12, d13, [sp, #128]
    ldp d14, d15, [sp, #144]
    add sp, sp, #160
    ret
.size host_switch, .-host_switch
)");
constexpr int SAVED = 20, RETURN = 11, SPARE = 0;
#endif
void change(Context* from, Context* to) { host_switch(from, *to); }
void prepare(Context* fiber, char* stack, void (*body)()) {
    auto words = reinterpret_cast<std::uintptr_t*>(stack + STACK) - SAVED - SPARE;
    std::memset(words, 0, (SAVED + SPARE) * sizeof *words);
    words[RETURN] = reinterpret_cast<std::uintptr_t>(body);
    *fiber = words;
}
#endif

std::vector<char*> free_stacks;

char* take_stack() {
    if (free_stacks.empty()) {
        char* memory = static_cast<char*>(mmap(nullptr, PAGE + STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
        if (memory == MAP_FAILED) abort();
        mprotect(memory, PAGE, PROT_NONE);  // a stack that is too small is seen
        return memory + PAGE;
    }
    char* stack = free_stacks.back();
    free_stacks.pop_back();
    return stack;
}

// ---- one launch ----

enum State { NEW, READY, AT_BARRIER, AT_WARP, ENDED };
enum Kind { FINE, TOUCHED, TRAPPED, DIVIDED, ENDLESS, BARRIER_MISSED, BARRIERS_DIFFER, WARP_MISSED, NOT_IN_MASK, NO_SUCH_LANE, NOT_ALIGNED };

struct Fiber {
    Place place;
    Context context;
    char* stack;
    State state;
    const char* file;
    int line;
};

struct Group {  // lanes of a warp that exchange values under one mask
    unsigned mask, arrived;
    int turn;
    Lane values[2][32];  // those of this turn and of the one before, which slower lanes still read
};

struct Report {
    int kind, line, other_line, lane;
    Three thread, block, other_thread;
    std::uintptr_t address;
    char file[64], other_file[64];
};

std::vector<Fiber> fibers;
std::vector<std::vector<Group>> warps;
Context scheduler;
Fiber* current;
void (*kernel)(void**);
void** arguments;
int at_barrier;
Fiber* first_there;  // at the barrier
Report report;
sigjmp_buf way_out;
volatile sig_atomic_t running = 0;
pthread_t runner;

void keep(char* to, const char* file) {
    std::strncpy(to, file ? file : "", 63);
    to[63] = 0;
}

[[noreturn]] void fail(Kind kind, const Fiber* culprit, const Fiber* other = nullptr) {
    report.kind = kind;
    if (culprit) {
        report.thread = culprit->place.thread;
        report.block = culprit->place.block;
        report.line = culprit->line;
        keep(report.file, culprit->file);
    }
    if (other) {
        report.other_thread = other->place.thread;
        report.other_line = other->state == ENDED ? 0 : other->line;
        keep(report.other_file, other->file);
    }
    siglongjmp(way_out, 1);
}

void body() {
    kernel(arguments);
    current->state = ENDED;
    change(&current->context, &scheduler);
    abort();
}

void wait(State state, const char* file, int line) {
    current->state = state;
    current->file = file;
    current->line = line;
    Fiber* self = current;
    change(&self->context, &scheduler);
}

struct Random {  // xorshift: the same order on every machine
    std::uint64_t state;
    unsigned below(unsigned n) {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        return state % n;
    }
};

enum Order { FORWARDS, BACKWARDS, SHUFFLED };

template <class T> void arrange(std::vector<T>& order, Order how, Random& random) {
    const std::size_t n = order.size();
    for (std::size_t i = 0; i < n; i++) order[i] = how == BACKWARDS ? n - 1 - i : i;
    if (how == SHUFFLED)
        for (std::size_t i = n; i > 1; i--) std::swap(order[i - 1], order[random.below(i)]);
}

void look_for_the_missing() {
    const Fiber* waiting = nullptr;
    const Fiber* other = nullptr;
    for (const Fiber& f : fibers)
        if (f.state == AT_BARRIER || f.state == AT_WARP) { waiting = &f; break; }
    for (const Fiber& f : fibers)
        if (f.state != waiting->state || f.line != waiting->line || std::strcmp(f.file, waiting->file)) { other = &f; break; }
    fail(waiting->state == AT_BARRIER ? BARRIER_MISSED : WARP_MISSED, waiting, other);
}

}  // namespace

extern "C" {

Place* host_now;
void* host_dynamic_shared;
bool host_copies_at_once;

void host_barrier(const char* file, int line) {
    current->file = file;
    current->line = line;
    if (at_barrier == 0) first_there = current;
    if (first_there->line != line || std::strcmp(first_there->file, file)) fail(BARRIERS_DIFFER, current, first_there);
    if (++at_barrier == (int)fibers.size()) {
        at_barrier = 0;
        for (Fiber& f : fibers) f.state = READY;
    }
    wait(at_barrier ? AT_BARRIER : READY, file, line);
}

const Lane* host_exchange(unsigned mask, const void* value, int size, unsigned* took_part, const char* file, int line) {
    const int number = current - fibers.data(), lane = number % 32, first = number - lane;
    const int lanes = fibers.size() - first < 32 ? fibers.size() - first : 32;
    current->file = file;
    current->line = line;
    if (!(mask >> lane & 1)) fail(NOT_IN_MASK, current);
    if (lanes < 32) mask &= (1u << lanes) - 1;
    std::vector<Group>& groups = warps[number / 32];
    std::size_t g = 0;
    while (g < groups.size() && groups[g].mask != mask) g++;
    if (g == groups.size()) groups.push_back(Group{mask, 0, 0, {}});
    const int turn = groups[g].turn;
    std::memcpy(groups[g].values[turn & 1][lane].bytes, value, size);
    groups[g].arrived |= 1u << lane;
    if (groups[g].arrived == mask) {
        groups[g].arrived = 0;
        groups[g].turn++;
        for (int i = 0; i < lanes; i++)
            if (mask >> i & 1) fibers[first + i].state = READY;
        wait(READY, file, line);
    } else {
        wait(AT_WARP, file, line);
    }
    *took_part = mask;
    return groups[g].values[turn & 1];
}

void host_no_such_lane(int lane, const char*, int) {
    report.lane = lane;
    fail(NO_SUCH_LANE, current);
}

void host_not_aligned() { fail(NOT_ALIGNED, current); }

// ---- memory that ends where it may not be touched ----

char* host_reserve(std::size_t bytes) {
    void* memory = mmap(nullptr, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return memory == MAP_FAILED ? nullptr : static_cast<char*>(memory);
}
void host_open(char* memory, std::size_t bytes, int writable) { mprotect(memory, bytes, writable ? PROT_READ | PROT_WRITE : PROT_READ); }
void host_release(char* memory, std::size_t bytes) { munmap(memory, bytes); }

// ---- signals ----

static const int SIGNALS[] = {SIGSEGV, SIGBUS, SIGILL, SIGTRAP, SIGFPE, SIGVTALRM};
static const int COUNT = sizeof SIGNALS / sizeof *SIGNALS;
static struct sigaction before[COUNT];

static void handle(int number, siginfo_t* info, void* context) {
    if (!running || !pthread_equal(pthread_self(), runner)) {
        if (number == SIGVTALRM) {
            if (running) pthread_kill(runner, SIGVTALRM);
            return;
        }
        for (int i = 0; i < COUNT; i++)  // another thread's own trouble
            if (SIGNALS[i] == number) sigaction(number, &before[i], nullptr);
        return;
    }
    report.address = reinterpret_cast<std::uintptr_t>(info->si_addr);
    fail(number == SIGVTALRM ? ENDLESS : number == SIGFPE ? DIVIDED : number == SIGSEGV || number == SIGBUS ? TOUCHED : TRAPPED, current);
}

// ---- numbers below 2⁻¹²⁶ ----

// CuPy has kernels compiled so that float has none: arithmetic and comparisons read them as 0 and make them 0, copies leave them.
#if defined(__SSE__)
static unsigned long arithmetic() { return _mm_getcsr(); }
static void set_arithmetic(unsigned long how) { _mm_setcsr(how); }
static const unsigned long NO_SMALL_NUMBERS = 0x8040;
#elif defined(__aarch64__)
static unsigned long arithmetic() {
    unsigned long how;
    asm volatile("mrs %0, fpcr" : "=r"(how));
    return how;
}
static void set_arithmetic(unsigned long how) { asm volatile("msr fpcr, %0" : : "r"(how)); }
static const unsigned long NO_SMALL_NUMBERS = 1ul << 24;
#else
static unsigned long arithmetic() { return 0; }
static void set_arithmetic(unsigned long) {}
static const unsigned long NO_SMALL_NUMBERS = 0;
#endif

// ---- launch ----

// Runs every block. shared: bytes of dynamic shared memory; poison: what shared memory holds at first. Returns 0, or what went wrong.
int host_launch(void (*run)(void**), void** values, const Three* blocks, const Three* threads, char* fixed, std::size_t fixed_bytes,
                std::size_t shared, int poison, int order, int seconds, Report* out) {
    static char* const dynamic = host_reserve((1 << 18) + (1 << 24));
    static char* const signal_stack = static_cast<char*>(malloc(1 << 16));
    host_open(dynamic, 1 << 18, 1);
    const std::size_t rounded = (shared + 15) / 16 * 16;
    host_dynamic_shared = dynamic + (1 << 18) - rounded;
    host_copies_at_once = order == BACKWARDS;

    std::memset(&report, 0, sizeof report);
    kernel = run;
    arguments = values;
    current = nullptr;
    const std::size_t per_block = std::size_t(threads->x) * threads->y * threads->z;
    fibers.assign(per_block, Fiber{});
    warps.assign((per_block + 31) / 32, {});
    for (auto& groups : warps) groups.reserve(64);
    std::vector<std::uint64_t> block_order(std::size_t(blocks->x) * blocks->y * blocks->z);
    std::vector<unsigned> turn(per_block);
    Random random{0x9E3779B97F4A7C15ull};
    arrange(block_order, Order(order), random);

    stack_t alternative = {}, stack_before = {};
    alternative.ss_sp = signal_stack;
    alternative.ss_size = 1 << 16;
    sigaltstack(&alternative, &stack_before);
    struct sigaction action = {};
    action.sa_sigaction = handle;
    action.sa_flags = SA_SIGINFO | SA_ONSTACK;
    for (int i = 0; i < COUNT; i++) sigaction(SIGNALS[i], &action, &before[i]);
    itimerval limit = {{0, 0}, {seconds, 0}}, none = {};
    setitimer(ITIMER_VIRTUAL, &limit, nullptr);
    runner = pthread_self();
    running = 1;
    const unsigned long usual = arithmetic();
    set_arithmetic(usual | NO_SMALL_NUMBERS);

    if (sigsetjmp(way_out, 1) == 0) {
        for (std::uint64_t number : block_order) {
            const Three block = {unsigned(number % blocks->x), unsigned(number / blocks->x % blocks->y), unsigned(number / blocks->x / blocks->y)};
            std::memset(fixed, poison, fixed_bytes);
            std::memset(host_dynamic_shared, poison, rounded);
            for (std::size_t i = 0; i < per_block; i++) {
                const Three thread = {unsigned(i % threads->x), unsigned(i / threads->x % threads->y), unsigned(i / threads->x / threads->y)};
                fibers[i].place = Place{thread, block, *threads, *blocks};
                fibers[i].state = NEW;
                fibers[i].file = "";
                fibers[i].line = 0;
            }
            at_barrier = 0;
            for (auto& groups : warps) groups.clear();
            for (std::size_t left = per_block; left;) {
                arrange(turn, Order(order), random);
                bool moved = false;
                for (unsigned i : turn) {
                    Fiber& f = fibers[i];
                    if (f.state != NEW && f.state != READY) continue;
                    if (f.state == NEW) {
                        f.stack = take_stack();
                        prepare(&f.context, f.stack, body);
                        f.state = READY;
                    }
                    moved = true;
                    current = &f;
                    host_now = &f.place;
                    change(&scheduler, &f.context);
                    if (f.state == ENDED) {
                        free_stacks.push_back(f.stack);
                        f.stack = nullptr;
                        left--;
                    }
                }
                if (!moved) look_for_the_missing();
            }
        }
    }
    running = 0;
    set_arithmetic(usual);
    setitimer(ITIMER_VIRTUAL, &none, nullptr);
    for (int i = 0; i < COUNT; i++) sigaction(SIGNALS[i], &before[i], nullptr);
    sigaltstack(&stack_before, nullptr);
    for (Fiber& f : fibers)
        if (f.stack) free_stacks.push_back(f.stack);
    *out = report;
    return report.kind;
}

}  // extern "C"
