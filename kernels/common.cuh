// Shared by all kernels: storage types, loads and stores, reductions within a warp and a block.
//
// Conventions of this folder:
//  - every kernel is `extern "C" __global__ void name(const Params p)`: one parameter struct by value, twin of a #[repr(C)] Pod struct in
//    src/backend/cuda/launch/<family>.rs (u64 where there is a pointer; explicit padding);
//  - compiled by NVRTC without any include but this file and, for bf16, cuda_bf16.h's replacement below, and as C++ by the tests' simulator;
//  - no float atomics: sums have a fixed order, so two runs give the same bits.
#pragma once
