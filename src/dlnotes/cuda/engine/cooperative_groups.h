#error "the CPU engine of dlnotes.cuda has no cooperative groups: use __syncthreads, __syncwarp, __shfl_sync"
