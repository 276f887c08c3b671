"""From events to the broker: the recorder, the delivery thread, the publisher."""
