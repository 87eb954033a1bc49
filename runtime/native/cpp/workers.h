// Work that threads share: the caller's is one of them.
#pragma once

#include <system_error>
#include <thread>
#include <vector>

namespace qanet {

// work(0) .. work(threads - 1), each on a thread of its own, or on fewer where the system has no more to give: the
// work has to be taken in turns, not dealt out by number.
template <typename Work>
void on_threads(int threads, const Work& work) {
    std::vector<std::thread> helpers;
    helpers.reserve(threads);
    try {
        for (int thread = 1; thread < threads; ++thread) helpers.emplace_back(work, thread);
    } catch (const std::system_error&) {  // those there are do it all
    }
    work(0);
    for (std::thread& helper : helpers) helper.join();
}

}  // namespace qanet
