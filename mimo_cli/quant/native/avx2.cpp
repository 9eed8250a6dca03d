#include "isa.hpp"
namespace mimo { const Isa* avx2_isa() { return nullptr; } }
