// The main program of an emulated kernel file: reads a request from stdin, launches, writes the buffers to stdout.
//
// Every buffer lies against a page that may not be touched: behind it, or before it when the request says so. A kernel
// that leaves a buffer ends the process with a message that names the argument.
#pragma once
#include <signal.h>
#include <sys/mman.h>

#include <string>
#include <tuple>
#include <utility>

namespace emulation {

struct Buffer {
    char* data;
    size_t bytes;
    char *pages, *pages_end;  // the guard pages included
};
inline std::vector<Buffer> buffers;

constexpr size_t PAGE = 4096;

inline Buffer allocate(size_t bytes, bool guard_before) {
    const size_t room = (bytes + PAGE - 1) / PAGE * PAGE;
    char* pages = static_cast<char*>(
        mmap(nullptr, room + 2 * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
    if (pages == MAP_FAILED || (room && mprotect(pages + PAGE, room, PROT_READ | PROT_WRITE))) std::abort();
    std::memset(pages + PAGE, 0xa5, room);
    char* data = pages + PAGE + (guard_before ? 0 : room - bytes);
    return {data, bytes, pages, pages + room + 2 * PAGE};
}

inline void on_fault(int, siginfo_t* info, void*) {
    const char* address = static_cast<char*>(info->si_addr);
    for (size_t i = 0; i < buffers.size(); ++i) {
        const Buffer& b = buffers[i];
        if (address < b.pages || address >= b.pages_end) continue;
        char text[96];
        std::snprintf(text, sizeof text, "byte %ld of buffer %zu, which has %zu bytes, was touched",
                      static_cast<long>(address - b.data), i, b.bytes);
        fail(text, block->current->thread, 0);
    }
    fail("memory outside every buffer was touched", block->current->thread, 0);
}

// The margin between the data and the page's other end holds a pattern that only a stray write changes.
inline void check_margins() {
    for (size_t i = 0; i < buffers.size(); ++i) {
        const Buffer& b = buffers[i];
        for (char* p = b.pages + PAGE; p < b.pages_end - PAGE; ++p)
            if ((p < b.data || p >= b.data + b.bytes) && *p != static_cast<char>(0xa5)) {
                std::fprintf(stderr, "emulation: %s: byte %ld of buffer %zu, which has %zu bytes, was written\n",
                             kernel_name, static_cast<long>(p - b.data), i, b.bytes);
                _exit(FAILED);
            }
    }
}

template <class T>
T read_value() {
    T value;
    if (std::fread(&value, sizeof value, 1, stdin) != 1) std::exit(2);
    return value;
}

struct Launch {
    dim3 grid, size;
    char* shared;
    size_t shared_bytes;
    unsigned schedule;
};

template <class A>
A read_argument() {
    if constexpr (std::is_pointer_v<A>) {
        const int64_t index = read_value<int64_t>();  // -1: a null pointer
        return index < 0 ? nullptr : reinterpret_cast<A>(buffers.at(index).data);
    } else {
        return read_value<A>();
    }
}

template <class... A>
void run(void (*kernel)(A...), const Launch& how) {
    if (read_value<uint32_t>() != sizeof...(A)) {
        std::fprintf(stderr, "emulation: %s takes %zu arguments\n", kernel_name, sizeof...(A));
        std::exit(2);
    }
    const std::tuple<A...> arguments{read_argument<A>()...};  // braces: in this order
    launch(how.grid, how.size, how.shared, how.shared_bytes, how.schedule, [&] { std::apply(kernel, arguments); });
}

template <class Dispatch>
int serve(Dispatch&& dispatch) {
    static char signal_stack[64 * 1024];
    const stack_t stack{signal_stack, 0, sizeof signal_stack};
    sigaltstack(&stack, nullptr);
    struct sigaction action = {};
    action.sa_sigaction = on_fault;
    action.sa_flags = SA_SIGINFO | SA_ONSTACK;
    sigaction(SIGSEGV, &action, nullptr);
    sigaction(SIGBUS, &action, nullptr);

    const bool guard_before = read_value<uint32_t>();
    buffers.resize(read_value<uint32_t>());
    for (Buffer& buffer : buffers) {
        buffer = allocate(read_value<uint64_t>(), guard_before);
        if (buffer.bytes && std::fread(buffer.data, buffer.bytes, 1, stdin) != 1) return 2;
    }
    const size_t buffer_count = buffers.size();
    for (uint32_t launches = read_value<uint32_t>(); launches; --launches) {
        std::string name(read_value<uint32_t>(), ' ');
        if (std::fread(name.data(), name.size(), 1, stdin) != 1) return 2;
        kernel_name = name.c_str();
        Launch how;
        how.grid = read_value<dim3>();
        how.size = read_value<dim3>();
        how.shared_bytes = read_value<uint32_t>();
        how.schedule = read_value<uint32_t>();
        buffers.push_back(allocate(how.shared_bytes, guard_before));
        how.shared = buffers.back().data;
        if (!dispatch(name, how)) {
            std::fprintf(stderr, "emulation: no kernel %s\n", kernel_name);
            return 2;
        }
        check_margins();
        buffers.resize(buffer_count);
    }
    for (const Buffer& buffer : buffers)
        if (buffer.bytes && std::fwrite(buffer.data, buffer.bytes, 1, stdout) != 1) return 2;
    return 0;
}

}  // namespace emulation
