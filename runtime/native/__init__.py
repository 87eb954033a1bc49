"""The frame's work on the CPU in C++: the crop of people (`crop`) and the kernel tail (`tail`)."""
