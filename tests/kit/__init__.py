"""Shared test equipment: clocks, servers, clients, networks with faults, and rigs."""
