"""From events to the broker: recorder, delivery thread and publisher."""
