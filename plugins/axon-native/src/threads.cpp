#include "threads.h"

#include <pthread.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <fstream>
#include <mutex>
#include <string>
#include <thread>
#ifdef __linux__
#include <sched.h>
#endif

namespace axon {

namespace {

/** A number from the environment, 0 if there is none. */
size_t asked_for(const char* variable) {
  const char* text = std::getenv(variable);
  return text == nullptr ? 0 : std::max(0L, std::strtol(text, nullptr, 10));
}

/** Processors that the control group grants at once, or many. */
size_t granted() {
  std::string quota, period;
  if (std::ifstream file{"/sys/fs/cgroup/cpu.max"}) {
    file >> quota >> period;
  } else {
    std::ifstream{"/sys/fs/cgroup/cpu/cpu.cfs_quota_us"} >> quota;
    std::ifstream{"/sys/fs/cgroup/cpu/cpu.cfs_period_us"} >> period;
  }
  const double most = std::atof(quota.c_str()), each = std::atof(period.c_str());  // "max" and "-1" are no limit
  return most > 0 && each > 0 ? static_cast<size_t>(std::ceil(most / each)) : SIZE_MAX;
}

size_t processors() {
#ifdef __linux__
  cpu_set_t allowed;
  if (sched_getaffinity(0, sizeof(allowed), &allowed) == 0) {
    return CPU_COUNT(&allowed);
  }
#endif
  return std::max(1u, std::thread::hardware_concurrency());
}

void rest() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

/** How often a thread looks before it lets others run: on few processors, these are who it waits for. */
constexpr int PATIENCE = 300;

/** Threads that sleep until there is work, and stay awake for some microseconds after it: more is often near. */
class Pool {
 public:
  explicit Pool(size_t helpers) {
    for (size_t i = 0; i < helpers; ++i) {
      std::thread([this] { help(); }).detach();
    }
  }

  /** Does all units; the helpers that wake up in time do some of them. False if another thread is being helped. */
  bool run(size_t count, const std::function<void(size_t)>& unit) {
    std::unique_lock alone{busy_, std::try_to_lock};
    if (!alone) {
      return false;
    }
    count_ = count;
    unit_ = &unit;
    next_ = 0;
    open_ = true;
    ++round_;
    round_.notify_all();
    work();
    open_ = false;  // whoever comes now finds nothing to do
    for (int i = 0; inside_ != 0; ++i) {
      i < PATIENCE ? rest() : std::this_thread::yield();  // whom it waits for may need this very processor
    }
    return true;
  }

 private:
  void work() {
    for (size_t i = next_++; i < count_; i = next_++) {
      (*unit_)(i);
    }
  }

  void help() {
    for (uint32_t seen = 0;;) {
      for (int i = 0; i < PATIENCE && round_ == seen; ++i) {
        rest();
      }
      round_.wait(seen);
      seen = round_;
      ++inside_;
      if (open_) {
        work();
      }
      --inside_;
    }
  }

  std::mutex busy_;
  size_t count_ = 0;
  const std::function<void(size_t)>* unit_ = nullptr;
  std::atomic<size_t> next_{0}, inside_{0};
  std::atomic<bool> open_{false};
  std::atomic<uint32_t> round_{0};
};

/** Never destroyed: its threads may be asleep when the process ends. */
std::atomic<Pool*> pool{nullptr};
std::mutex making;

/** A process that was forked has none of the threads. */
void forget() { pool = nullptr; }

Pool& the_pool() {
  if (pool == nullptr) {
    std::lock_guard lock{making};
    if (pool == nullptr) {
      static std::once_flag registered;
      std::call_once(registered, [] { pthread_atfork(nullptr, nullptr, forget); });
      pool = new Pool(most_threads() - 1);
    }
  }
  return *pool;
}

}  // namespace

size_t most_threads() {
  static const size_t most = [] {
    for (const char* variable : {"AXON_THREADS", "OMP_NUM_THREADS"}) {
      if (const size_t asked = asked_for(variable)) {
        return asked;
      }
    }
    return std::min(processors(), granted());
  }();
  return most;
}

void in_parallel(size_t count, size_t work, const std::function<void(size_t)>& unit) {
  constexpr size_t WORTH_IT = 1 << 17;  // some 10 us, in which a thread that is awake begins
  if (std::min({count, most_threads(), 1 + work / WORTH_IT}) > 1 && the_pool().run(count, unit)) {
    return;
  }
  for (size_t i = 0; i < count; ++i) {
    unit(i);
  }
}

}  // namespace axon
