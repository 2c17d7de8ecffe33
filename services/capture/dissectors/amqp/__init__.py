"""AMQP 0-9-1, as RabbitMQ speaks it."""

from services.capture.dissectors.amqp.conversation import SIGNATURES, Amqp

__all__ = ["SIGNATURES", "Amqp"]
