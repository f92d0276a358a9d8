"""Throwaway Kafka brokers: Apache Kafka run from its jars, and an emulator where no Java is at hand.

What belongs here: getting the jars (`jars`), one node's life (`server`, `noida`), choosing between them (`find`).
What stays out: topics and records, and every rule about capturing or restoring them (stores/kafka).
"""
