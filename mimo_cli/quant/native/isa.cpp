#include "isa.hpp"

#include <cstring>

namespace mimo {

const Isa* best_isa(const char* wanted) {
  const bool any = !std::strcmp(wanted, "auto");
  if (any || !std::strcmp(wanted, "avx512"))
    if (const Isa* isa = avx512_isa()) return isa;
  if (any || !std::strcmp(wanted, "avx2"))
    if (const Isa* isa = avx2_isa()) return isa;
  return nullptr;
}

}  // namespace mimo
