// How a kernel of a decode step follows the one before it in the stream.
//
// A step is a chain of some 225 short kernels. Started one after the other each costs several microseconds in which
// memory rests: the last blocks end, the next launch arrives, its first loads travel. With programmatic dependent
// launches (sm_90; before, every launch is AFTER) a kernel is on the card before the one in front of it has ended, asks
// for what no kernel of the step writes (weights, the pages of rows that were there), and only then waits.
//
// What makes that sound: every kernel of a chain waits, in at least one block, for the one in front of it before it ends,
// so "the one in front has ended" means that all before it have; and before its wait a kernel reads nothing that a kernel
// of the same chain writes. A chain begins with a kernel that is launched AFTER what was made for the whole step (inputs,
// angles, the plan of attention).
//
// This header is shared with CUDA sources: valid C and C++.
#ifndef PITH_CUDA_CHAIN_H
#define PITH_CUDA_CHAIN_H

typedef enum pith_cuda_follow {
    PITH_CUDA_AFTER,   // starts when all before it has ended
    PITH_CUDA_OVERLAP, // starts early, and lets the next one start when what is in front of it has ended: never more
                       // than two kernels are under way
    PITH_CUDA_EARLY    // starts early, and lets the next one start as soon as all its own blocks have: as many kernels
                       // are under way as the card has room for
} pith_cuda_follow;

#endif
