// Timed work of several processes, of which one runs at a time: `dsa-bench gate` lets its binaries time
// calls and steps in alternating slices, so that a machine whose speed changes within seconds slows all alike.
#pragma once

namespace dsa {

/// Ends this process's turn and waits for its next one. `socket` is the end that the leader passed on
/// (--turns); nothing happens below 0, or once the leader is gone.
void await_turn(int socket);

}  // namespace dsa
