"""lobit implements Quantized Neural Networks."""
