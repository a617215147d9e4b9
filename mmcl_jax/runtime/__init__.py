"""Devices, processes, the compiler, signals, files, options and errors; nothing about clips."""
