// What this processor can do, asked at run time.
#pragma once

namespace mimo {

bool cpu_has_avx512();  // F, BW, VL, DQ, VNNI, BF16 and VBMI together, enabled by the operating system
bool cpu_has_avx2();    // AVX2, FMA and F16C

}  // namespace mimo
