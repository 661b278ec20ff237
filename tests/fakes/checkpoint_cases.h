// Inputs that lead each checkpoint parser into every one of its errors, and what it must say. The parser
// tests check them all; they are also the seeds of the fuzz targets (tests/fuzz/seeds, written by
// tests/fuzz/write_checkpoint_seeds.cc). Thread-safe.
#pragma once

#include <string>
#include <vector>

#include "core/error.h"

namespace sluice::testing {

struct ParserCase {
  std::string name;  ///< also the seed's file name
  std::string input;
  Code code = Code::kOk;     ///< kOk: the input is accepted
  std::string message = {};  ///< part of the error's text
};

std::vector<ParserCase> safetensors_cases();
std::vector<ParserCase> npy_cases();
/// Whole torch files.
std::vector<ParserCase> torch_zip_cases();
/// data.pkl alone; every storage has 64 bytes.
std::vector<ParserCase> pickle_cases();
std::vector<ParserCase> hf_config_cases();
std::vector<ParserCase> shard_index_cases();

}  // namespace sluice::testing
