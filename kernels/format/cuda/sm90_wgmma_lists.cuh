// Lists of registers as the assembly text of a matrix product of a warpgroup wants them. For *.cu files only,
// by way of sm90_wgmma*.cuh. They stay defined, because several headers make products of them.
#pragma once

// The operands d[i], d[i + 1], ..: sums, which the product reads and writes.
#define SLUICE_SUMS_4(i) "+f"(d[i]), "+f"(d[(i) + 1]), "+f"(d[(i) + 2]), "+f"(d[(i) + 3])
#define SLUICE_SUMS_8(i) SLUICE_SUMS_4(i), SLUICE_SUMS_4((i) + 4)
#define SLUICE_SUMS_16(i) SLUICE_SUMS_8(i), SLUICE_SUMS_8((i) + 8)
#define SLUICE_SUMS_32(i) SLUICE_SUMS_16(i), SLUICE_SUMS_16((i) + 16)
#define SLUICE_SUMS_64(i) SLUICE_SUMS_32(i), SLUICE_SUMS_32((i) + 32)

// The names of the first so many operands.
#define SLUICE_NAMES_4 "%0, %1, %2, %3"
#define SLUICE_NAMES_8 SLUICE_NAMES_4 ", %4, %5, %6, %7"
#define SLUICE_NAMES_16 SLUICE_NAMES_8 ", %8, %9, %10, %11, %12, %13, %14, %15"
#define SLUICE_NAMES_32 \
  SLUICE_NAMES_16       \
  ", %16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31"
#define SLUICE_NAMES_64                                                                \
  SLUICE_NAMES_32                                                                      \
  ", %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, " \
  "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"
